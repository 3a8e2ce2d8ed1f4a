// Running the program `cald` from a test.
#pragma once
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/data/temp_folder.h"

namespace cald {

namespace fs = std::filesystem;

inline const std::string kGolden = std::string(CALD_SOURCE_DIR) + "/tests/golden/";

struct Result {
  int code;
  std::string out, err;
};

/// Runs `cald ARGUMENTS` through the shell, in `folder`.
inline Result cald(const TempFolder& folder, const std::string& arguments, const std::string& before = "") {
  const std::string program = std::string(CALD_BINARY_DIR) + "/cald";
  const std::string out = folder / "stdout.txt", err = folder / "stderr.txt";
  const std::string command = "{ cd '" + folder.path() + "'; " + before + " '" + program + "' " + arguments + "; } >'" +
                              out + "' 2>'" + err + "' </dev/null";
  const int status = std::system(command.c_str());
  Result r{WIFEXITED(status) ? WEXITSTATUS(status) : -1, content_of(out), content_of(err)};
  fs::remove(out);
  fs::remove(err);
  return r;
}

/// The exit code, and one line on stderr that holds `message`.
inline void expect_one_line_error(const Result& r, int code, const std::string& message, const std::string& what) {
  EXPECT_EQ(r.code, code) << what << ": " << r.err;
  EXPECT_CONTAINS(r.err, message) << what;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << what << ": " << r.err;
}

}  // namespace cald
