// The words of the scheduler's messages.
#pragma once
#include <vector_types.h>

#include <source_location>
#include <string>
#include <string_view>

namespace cald::emulation {

using Location = std::source_location;

inline std::string where(const Location& at) { return std::string(at.file_name()) + ":" + std::to_string(at.line()); }

inline std::string triple(const uint3& v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

inline bool same_place(const char* op, const Location& at, const char* other_op, const Location& other) {
  auto equal = [](const char* a, const char* b) { return a == b || std::string_view(a) == b; };
  return at.line() == other.line() && equal(op, other_op) && equal(at.file_name(), other.file_name());
}

/// `what` diverges: one thread has come to `op` while `others` wait elsewhere.
inline std::string divergence(const char* what, const char* op, std::size_t others, const char* other_op,
                              const Location& other) {
  return std::string("divergent ") + what + ": this thread is at " + op + " while " + std::to_string(others) +
         " of the threads it must meet wait at " + where(other) + " in " + other_op;
}

}  // namespace cald::emulation
