// cald report: run directories to HTML.
#include <cstdio>
#include <memory>

#include "app/commands.h"
#include "app/report.h"
#include "engine/base/error.h"

namespace cald {

CommandBody add_report(CLI::App& command) {
  struct Flags {
    std::vector<std::string> runs;
    std::string output;
  };
  auto f = std::make_shared<Flags>();
  command.add_option("run", f->runs, "run directory; several are compared side by side")->required();
  command.add_option("--output", f->output, "file to write (default: RUN/report.html; needed for several runs)");
  return [f] {
    if (f->runs.size() == 1 && f->output.empty()) {
      write_report(f->runs.front());
      std::printf("%s/report.html\n", f->runs.front().c_str());
      return 0;
    }
    if (f->output.empty()) throw usage_error("report: several runs need --output FILE");
    write_comparison(f->runs, f->output);
    std::printf("%s\n", f->output.c_str());
    return 0;
  };
}

}  // namespace cald
