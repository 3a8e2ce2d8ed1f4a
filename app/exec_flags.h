// Where and how commands without a recipe compute: --device, --threads and --dtype.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "engine/base/exec.h"

namespace cald {

struct ExecFlags {
  std::int64_t threads = 0;
  std::string dtype = "f32", device = "cpu";
  bool tf32 = false;
};
void add_exec_flags(CLI::App& command, ExecFlags& flags);
Exec exec_of(const ExecFlags& flags);

/// `wanted`, as --`flag` says, or f32 with one line on stderr where it is bf16 and the device has no instructions for
/// it.
DType supported_dtype(Device device, DType wanted, const char* flag);

}  // namespace cald
