// The message of a usage error that a test expects.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "engine/base/error.h"

namespace cald {

/// Runs f and gives the message of the usage error that it must throw.
template <class F>
std::string usage_message(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace cald
