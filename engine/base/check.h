// Checks at an op's door: the message names op, operand, what was got and what was wanted.
#pragma once
#include <string>

#include "engine/base/error.h"
#include "engine/base/tensor_ref.h"

namespace cald {

inline void check_shape(const char* op, const char* operand, const Shape& got, const Shape& want) {
  if (!(got == want))
    throw Error(std::string(op) + ": " + operand + " has shape " + got.str() + ", wanted " + want.str());
}

inline void check_dtype(const char* op, const char* operand, DType got, DType want) {
  if (got != want) throw Error(std::string(op) + ": " + operand + " is " + name_of(got) + ", wanted " + name_of(want));
}

/// A condition on an operand that is neither shape nor dtype; `want` says what would have been right.
inline void check_that(bool ok, const char* op, const char* operand, const std::string& want) {
  if (!ok) throw Error(std::string(op) + ": " + operand + " must be " + want);
}

}  // namespace cald

/// Inside an op's member function, whose class has a static `name`: CHECK_SHAPE(w, {n, k}).
#define CHECK_SHAPE(tensor, ...) ::cald::check_shape(name, #tensor, (tensor).shape(), ::cald::Shape __VA_ARGS__)
#define CHECK_DTYPE(tensor, want) ::cald::check_dtype(name, #tensor, (tensor).dtype(), want)
#define CHECK_THAT(ok, operand, want) ::cald::check_that(ok, name, operand, want)
