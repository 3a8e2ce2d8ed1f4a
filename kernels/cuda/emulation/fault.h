// A kernel's access of an address that is not mapped, such as a null pointer, ends the kernel instead of the program.
#pragma once

namespace cald::emulation {

/// Takes over SIGSEGV and SIGBUS, once; faults outside of kernels end the program as before. Does nothing under
/// AddressSanitizer, which reports them itself.
void catch_faults();

}  // namespace cald::emulation
