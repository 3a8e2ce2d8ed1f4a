// cald: turns a pretrained transformer into a linear-complexity model while fine-tuning it.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <vector>

#include "app/cli_options.h"
#include "app/commands.h"
#include "data/atomic_file.h"

namespace {

struct Command {
  const char* name;
  const char* help;
  cald::CommandBody (*add)(CLI::App&);
};

constexpr Command kCommands[] = {
    {"finetune", "Fine-tune a transformer on a task", cald::add_finetune},
    {"convert", "Turn a transformer into a linear-complexity student while fine-tuning it", cald::add_convert},
    {"evaluate", "Measure a model on a data set", cald::add_evaluate},
    {"predict", "Classify text: label and probabilities, a line for each text", cald::add_predict},
    {"states", "Write hidden states and logits for given token ids", cald::add_states},
    {"plan", "Print the memory plan of a run without training", cald::add_plan},
    {"inspect", "Show a model directory: configuration, tensors, what a conversion would do", cald::add_inspect},
    {"drift", "Show how far hidden states moved over a fine-tuning run, and the mode that suits", cald::add_drift},
    {"report", "Make one HTML file of a run directory, or of several side by side", cald::add_report},
    {"prepare", "Turn a published data set into this program's layout", cald::add_prepare},
    {"bench", "Measure the kernels or a training step, with the share of this machine's peak", cald::add_bench},
};

int run(int argc, char** argv) {
  CLI::App app("CALD: cross-architecture layerwise distillation (He & Garner, ICLR 2025)", "cald");
  app.set_version_flag("--version", "cald " CALD_VERSION, "Print the version");
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, cald::CommandBody>> bodies;
  for (const Command& c : kCommands) {
    CLI::App* sub = app.add_subcommand(c.name, c.help);
    bodies.emplace_back(sub, c.add(*sub));
  }
  try {
    cald::parse_command_line(app, argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  }
  for (const auto& [sub, body] : bodies)
    if (sub->parsed()) return body();
  return 2;
}

/// A result that could not be written is no success.
int after_output(int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  if (errno != 0) throw cald::file_error("standard output", "write", errno);
  throw cald::Error("standard output: cannot write");  // it failed earlier, when nobody asked why
}

}  // namespace

int main(int argc, char** argv) {
  // A write beyond the limit on files' sizes then fails like one on a full disk, and is reported and cleaned up alike.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return after_output(run(argc, argv));
  } catch (const cald::Error& e) {
    std::fprintf(stderr, "cald: %s\n", e.what());
    return e.kind() == cald::ErrorKind::usage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "cald: out of memory\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "cald: %s\n", e.what());
  }
  return 1;
}
