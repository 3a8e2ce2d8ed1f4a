// From an address of the program's code to the source, by addr2line and the debug information.
#pragma once
#include <string>

namespace cald::emulation {

/// "file:line" of the call that returns to `pc`: the innermost frame outside the emulator's headers.
std::string source_line(const void* pc);
/// The demangled name of the function at `code`, or its address where that is not known.
std::string function_name(const void* code);

}  // namespace cald::emulation
