#include "kernels/cuda/emulation/source_line.h"

#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <vector>

extern "C" const char __executable_start;

namespace cald::emulation {
namespace {

std::string hex(std::uintptr_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%zx", static_cast<std::size_t>(value));
  return text;
}

/// The lines that addr2line prints for one address; none where it cannot be asked.
std::vector<std::string> ask(const void* pc, const std::string& flags) {
  Dl_info info;
  if (!dladdr(pc, &info)) return {};
  std::string file = info.dli_fname;
  if (info.dli_fbase == &__executable_start) {  // whose name may be relative to another folder
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    if (length > 0) file.assign(path, static_cast<std::size_t>(length));
  }
  const bool relocated = static_cast<const Elf64_Ehdr*>(info.dli_fbase)->e_type == ET_DYN;
  const auto offset = reinterpret_cast<std::uintptr_t>(pc) -
                      (relocated ? reinterpret_cast<std::uintptr_t>(info.dli_fbase) : std::uintptr_t{0});
  std::FILE* pipe = popen(("addr2line " + flags + " -e '" + file + "' " + hex(offset) + " 2>/dev/null").c_str(), "r");
  if (!pipe) return {};
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
  pclose(pipe);
  std::vector<std::string> lines;
  for (std::size_t from = 0, to; (to = text.find('\n', from)) != std::string::npos; from = to + 1)
    lines.push_back(text.substr(from, to - from));
  return lines;
}

bool of_the_emulator(const std::string& line) { return line.find("kernels/cuda/emulation/") != std::string::npos; }

std::string find_source_line(const void* pc) {
  // The address before the return address belongs to the call itself.
  const std::vector<std::string> frames = ask(static_cast<const char*>(pc) - 1, "-i");
  for (const std::string& frame : frames)
    if (!of_the_emulator(frame)) return frame.substr(0, frame.find(" ("));
  return "code at " + hex(reinterpret_cast<std::uintptr_t>(pc));
}

}  // namespace

std::string source_line(const void* pc) {
  static std::map<const void*, std::string> known;  // asking starts a process
  std::string& line = known[pc];
  if (line.empty()) line = find_source_line(pc);
  return line;
}

std::string function_name(const void* code) {
  const std::vector<std::string> lines = ask(code, "-f -C");
  return lines.empty() || lines[0] == "??" ? hex(reinterpret_cast<std::uintptr_t>(code)) : lines[0];
}

}  // namespace cald::emulation
