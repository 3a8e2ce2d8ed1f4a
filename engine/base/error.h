// The one exception type: every failure that a user can cause or meet is an Error whose message is one line.
#pragma once
#include <stdexcept>
#include <string>

namespace cald {

/// What kind of failure it is; the program's exit code follows from it (usage: 2, all others: 1).
enum class ErrorKind { usage, data, runtime };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  explicit Error(const std::string& message) : Error(ErrorKind::runtime, message) {}

  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

/// A wrong command line or recipe: names the key or flag, what was given and what is accepted.
inline Error usage_error(const std::string& message) { return {ErrorKind::usage, message}; }

/// A bad input file: `where` is "path", "path:line" or "path: tensor 'name'".
inline Error data_error(const std::string& where, const std::string& what) {
  return {ErrorKind::data, where + ": " + what};
}

}  // namespace cald
