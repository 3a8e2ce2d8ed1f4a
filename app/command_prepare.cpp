// cald prepare: a published data set into this program's layout.
#include <cstdio>
#include <memory>

#include "app/commands.h"
#include "data/prepare.h"

namespace cald {
namespace {

int prepare_data(const PrepareOptions& o) {
  const PrepareResult r = prepare(o);
  const auto number = [](std::int64_t n) { return std::to_string(n); };
  std::string line = number(r.read) + " rows read, " + number(r.dropped) + " dropped, " + number(r.written) +
                     " written to " + o.output;
  if (!o.held_out.empty()) line += ", " + number(r.held_out) + " held out in " + o.held_out;
  std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace

CommandBody add_prepare(CLI::App& command) {
  auto o = std::make_shared<PrepareOptions>();
  command.add_option("layout", o->layout, "what the input is. " + prepare_layouts())->required();
  command.add_option("input", o->input, "the published file or folder")->required();
  command.add_option("--output", o->output, "TSV file to write: sentence, [sentence2,] label")->required();
  command.add_option("--source", o->source, "movie-reviews: only rows whose source contains this");
  command.add_option(
      "--exclude", o->exclude,
      "prepared TSV file; rows of which a text occurs there are dropped (only letters and digits count)");
  auto* held_out =
      command.add_option("--held-out", o->held_out, "TSV file for rows held out; no text occurs in both files");
  command.add_option("--hold-out", o->hold_out, "rows to hold out")->needs(held_out);
  command.add_option("--seed", o->seed, "which rows are held out")->capture_default_str();
  return [o] { return prepare_data(*o); };
}

}  // namespace cald
