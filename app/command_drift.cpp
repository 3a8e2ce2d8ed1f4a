// cald drift: how far hidden states move over a fine-tuning run, layer by layer, and the mode that follows from it.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/cli_options.h"
#include "app/commands.h"
#include "app/exec_flags.h"
#include "app/run_data.h"
#include "app/text_table.h"
#include "data/atomic_file.h"
#include "data/json_text.h"
#include "engine/open_device.h"
#include "train/drift.h"
#include "train/model_io.h"
#include "train/option_io.h"
#include "train/run_directory.h"

namespace cald {
namespace {

struct Flags {
  std::string run, dev, json;
  std::int64_t inputs = 256, batch_size = 64;
  ExecFlags exec;
};

/// The start of a run, in the shape of its waypoints. The head that fine-tuning may have given them has no part in the
/// states, and is left as it is drawn.
std::unique_ptr<Encoder> load_start(const ModelDir& from, const EncoderConfig& shape, Allocator& heap) {
  auto start = std::make_unique<Encoder>(shape);
  TransferPolicy policy;
  policy.create_head = !has_head(from);
  policy.replace_head = !policy.create_head;
  plan_transfer(*start, from, policy);
  start->parameters().allocate(heap, MemClass::weights);
  load_parameters(*start, from, policy);
  return start;
}

/// The drift at the run's waypoints, which lie evenly in steps.
DriftCurve measure_waypoints(const Flags& f) {
  RunOptions o;
  const std::string recipe = f.run + "/recipe.json";
  options_from_json(o, read_json_object(recipe), recipe);
  if (f.dev.empty() || o.keep_waypoints == 0)
    throw data_error(f.run,
                     "has no drift: 'cald finetune ... --drift' records it; for a run with --keep-waypoints, --dev "
                     "FILE measures it here");
  const std::vector<std::string> waypoints = list_waypoints(f.run);
  const OpenDevice device(exec_of(f.exec));
  HeapAllocator heap(device.exec().device);
  const ModelDir first(waypoints.front());
  const std::unique_ptr<Encoder> model = load_encoder(first, heap, device.exec());
  const EncoderConfig& config = model->config();
  const std::unique_ptr<Encoder> start = load_start(ModelDir(o.model), config, heap);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer_of(first);
  const std::int64_t limit = o.max_length.value_or(std::min<std::int64_t>(128, config.max_tokens()));
  const LabelMap labels = LabelMap::from_names(config.labels);
  const EncodedTask task = load_task(f.dev, o, {tokenizer.get(), limit}, &labels);
  PlannedMemory memory(device.exec(), heap);
  DriftMeter meter(*start, spaced_examples(task, f.inputs), f.batch_size, memory);
  DriftCurve curve;
  curve.total = static_cast<std::int64_t>(read_run(f.run).last_step());
  curve.add(0, std::vector<double>(static_cast<std::size_t>(config.layers) + 1, 0.0));
  const auto count = static_cast<std::int64_t>(waypoints.size());
  for (std::int64_t i = 1; i <= count; ++i) {
    load_parameters(*model, ModelDir(waypoints[static_cast<std::size_t>(i - 1)]), {});
    curve.add(curve.total * i / count, meter.measure(*model));
  }
  return curve;
}

std::string number_text(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", v);
  return text;
}

std::string drift_table(const DriftCurve& curve) {
  std::vector<std::string> header = {"step", "mean of layers", "embeddings"};
  for (std::size_t i = 1; i < curve.by_state.front().size(); ++i) header.push_back("layer " + std::to_string(i));
  TextTable table(header);
  for (std::size_t m = 0; m < curve.steps.size(); ++m) {
    std::vector<std::string> row = {std::to_string(curve.steps[m]), number_text(curve.mean(m))};
    for (const double d : curve.by_state[m]) row.push_back(number_text(d));
    table.add_row(row);
  }
  return table.str();
}

void print(const DriftCurve& curve) {
  std::printf("%s", drift_table(curve).c_str());
  if (!curve.ended()) {
    std::printf("measured until step %lld of %lld; the mode follows when the run has ended\n",
                static_cast<long long>(curve.steps.back()), static_cast<long long>(curve.total));
    return;
  }
  const auto end = static_cast<double>(curve.total);
  const double half = curve.step_of(0.5);
  std::printf("half of the final drift: after %.1f of %.0f steps (%.1f %%)\n", half, end, 100 * half / end);
  std::printf("share of it within the first 5 %% of the steps: %.1f %%\n", 100 * curve.share_within(0.05));
  std::printf("mode: %s, since over half of the drift %s within the first 5 %% of the steps\n", curve.mode(),
              curve.is_sudden() ? "happens" : "does not happen");
  std::printf("a hybrid stop would lie at %.0f %% of the steps, where nine tenths of the drift have happened\n",
              100 * curve.hybrid_stop().value);
}

int show_drift(const Flags& f) {
  require_directory(f.run);
  DriftCurve curve = read_drift(f.run);
  if (curve.empty())
    curve = measure_waypoints(f);
  else if (!f.dev.empty())
    std::fprintf(stderr, "%s has recorded its drift: --dev is not used\n", f.run.c_str());
  nlohmann::ordered_json j = {{"run", f.run}};
  j.update(curve.json());
  print(curve);
  if (!f.json.empty()) write_file_atomically(f.json, j.dump(1) + "\n");
  return 0;
}

}  // namespace

CommandBody add_drift(CLI::App& command) {
  auto f = std::make_shared<Flags>();
  command.add_option("run", f->run, "run directory of finetune --drift, or of finetune --keep-waypoints with --dev")
      ->required();
  command.add_option("--dev", f->dev, "where the run recorded no drift: held-out data to measure its waypoints on");
  command.add_option("--inputs", f->inputs, "examples of --dev to measure on, evenly spaced")
      ->check(whole_number(1, kMostRows))
      ->capture_default_str();
  command.add_option("--batch-size", f->batch_size, "examples of a batch")
      ->check(whole_number(1, kMostRows))
      ->capture_default_str();
  command.add_option("--json", f->json, "also write the drift and what follows from it to this file");
  add_exec_flags(command, f->exec);
  return [f] { return show_drift(*f); };
}

}  // namespace cald
