#include "train/drift.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/atomic_file.h"
#include "data/json_text.h"
#include "engine/host_access.h"
#include "kernels/transfer.h"
#include "ops/losses.h"
#include "train/batch_input.h"
#include "train/model_io.h"

namespace cald {
namespace {

PlanKey key_of(std::int64_t batch, std::int64_t seq) { return {"drift", batch, seq}; }

/// The run directory that holds a model RUN/model or a waypoint RUN/waypoints/N; empty if there is none.
std::string run_of(const std::string& model) {
  auto path = std::filesystem::path(model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  for (int i = 0; i < 2; ++i) {
    path = path.parent_path();
    if (std::filesystem::exists(path / "recipe.json")) return path.empty() ? "." : path.string();
  }
  return "";
}

/// Error if the run's drift is not that of `model`, by what is there to tell.
void require_same_model(const std::string& run, const DriftCurve& curve, const std::string& model) {
  namespace fs = std::filesystem;
  const auto layers = static_cast<std::int64_t>(read_encoder_config(ModelDir(model)).layers);
  const std::int64_t measured = static_cast<std::int64_t>(curve.by_state.front().size()) - 1;
  if (measured != layers)
    throw data_error(run, "its drift is that of " + std::to_string(measured) + " layers, but " + model + " has " +
                              std::to_string(layers));
  if (!fs::exists(run + "/recipe.json")) return;
  const std::string tuned = read_json_object(run + "/recipe.json").value("model", "");
  // A recipe's path may be one from another place; only where it leads somewhere it can be compared.
  if (fs::exists(tuned) && !fs::equivalent(tuned, model))
    throw data_error(
        run, "its drift is that of " + tuned + ", wanted one of " + model + "; or give hybrid-stop as a number");
}

}  // namespace

DriftMeter::DriftMeter(const Encoder& start, EncodedTask inputs, std::int64_t batch_size, PlannedMemory& memory)
    : start_(&start), inputs_(std::move(inputs)), batches_(batches_by_length(inputs_, batch_size)), memory_(memory) {}

DriftMeter DriftMeter::from_now(const Encoder& model, EncodedTask inputs, std::int64_t batch_size,
                                PlannedMemory& memory, Allocator& heap) {
  auto copy = std::make_unique<Encoder>(model.config());
  copy->parameters().allocate(heap, MemClass::teacher);
  auto to = copy->parameters().all().begin();
  for (const Parameter& from : model.parameters().all()) {
    const Tensor& value = (to++)->value;
    look_on_host(from.value, [&](const float* values) { write_tensor(value, values); });
  }
  DriftMeter meter(*copy, std::move(inputs), batch_size, memory);
  meter.own_ = std::move(copy);
  return meter;
}

void DriftMeter::forward_batch(Context& c, const Encoder& model, std::int64_t batch, std::int64_t seq,
                               const TokenBatch* host, std::vector<float>& drift) const {
  const Context::Scope scope(c, "drift");
  const LabelledInput in = make_input(c, batch, seq, host, model.config());
  Tape tape(c, false);
  const EncoderOutput before = start_->forward(tape, in.encoder, {}, true);
  const EncoderOutput now = model.forward(tape, in.encoder, {}, true);
  drift.assign(now.states.size(), 0);
  for (std::size_t i = 0; i < now.states.size(); ++i) {
    const Tensor d = tape.apply(SquaredError{before.states[i], in.encoder.mask, true}, now.states[i]);  // eq:drift
    if (host) c.launch(Download{d, &drift[i]});
  }
  c.synchronize();
}

void DriftMeter::plan(const Encoder& model, PlannedMemory& memory) const {
  for (const auto& rows : batches_) {
    const auto batch = static_cast<std::int64_t>(rows.size());
    const auto seq = static_cast<std::int64_t>(inputs_.encodings[static_cast<std::size_t>(rows.front())].ids.size());
    std::vector<float> none;
    memory.plan(key_of(batch, seq), [&](Context& c) { forward_batch(c, model, batch, seq, nullptr, none); });
  }
}

std::vector<double> DriftMeter::measure(const Encoder& model) {
  plan(model, memory_);
  std::vector<double> sum;
  double positions = 0;
  for (const auto& rows : batches_) {
    const TokenBatch batch = gather(inputs_, rows, model.config().pad_id);
    std::vector<float> drift;
    memory_.run(key_of(batch.batch, batch.seq),
                [&](Context& c) { forward_batch(c, model, batch.batch, batch.seq, &batch, drift); });
    const auto valid = static_cast<double>(batch.valid_tokens());
    sum.resize(drift.size());
    for (std::size_t i = 0; i < drift.size(); ++i) sum[i] += valid * static_cast<double>(drift[i]);
    positions += valid;
  }
  for (double& s : sum) s /= positions;
  return sum;
}

EncodedTask spaced_examples(const EncodedTask& task, std::int64_t count) {
  if (task.size() <= count) return task;
  EncodedTask some{task.path, {}, {}, task.label_map};
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(i * task.size() / count);
    some.encodings.push_back(task.encodings[row]);
    some.labels.push_back(task.labels[row]);
  }
  return some;
}

void DriftCurve::add(std::int64_t step, std::vector<double> drift) {
  steps.push_back(step);
  by_state.push_back(std::move(drift));
}

double DriftCurve::mean(std::size_t measurement) const {
  const std::vector<double>& d = by_state[measurement];
  double sum = 0;
  for (std::size_t i = 1; i < d.size(); ++i) sum += d[i];
  return d.size() < 2 ? 0 : sum / static_cast<double>(d.size() - 1);
}

std::vector<double> DriftCurve::means() const {
  std::vector<double> all;
  for (std::size_t i = 0; i < steps.size(); ++i) all.push_back(mean(i));
  return all;
}

double DriftCurve::step_of(double share) const {
  const std::vector<double> m = means();
  if (!has_moved()) throw Error("the hidden states have not moved over the run, so nothing follows");
  const double wanted = share * m.back();
  for (std::size_t i = 1; i < m.size(); ++i) {
    if (m[i] < wanted) continue;
    const double part = (wanted - m[i - 1]) / (m[i] - m[i - 1]);
    return static_cast<double>(steps[i - 1]) + part * static_cast<double>(steps[i] - steps[i - 1]);
  }
  return static_cast<double>(steps.back());
}

double DriftCurve::share_within(double part) const {
  const std::vector<double> m = means();
  step_of(1);  // an error where nothing has moved
  const double at = part * static_cast<double>(steps.back());
  double reached = 0;
  for (std::size_t i = 1; i < m.size(); ++i) {
    const auto from = static_cast<double>(steps[i - 1]), to = static_cast<double>(steps[i]);
    if (to <= at) {
      reached = std::max(reached, m[i]);
      continue;
    }
    reached = std::max(reached, m[i - 1] + (m[i] - m[i - 1]) * (at - from) / (to - from));
    break;
  }
  return reached / m.back();
}

StepOrShare DriftCurve::hybrid_stop() const {
  constexpr double kSettled = 0.9;
  const double share = step_of(kSettled) / static_cast<double>(steps.back());
  return {std::ceil(100 * share) / 100, true};
}

nlohmann::ordered_json DriftCurve::json() const {
  nlohmann::ordered_json j = {{"of", total}, {"steps", steps}, {"drift_by_state", by_state}, {"drift", means()}};
  if (ended() && has_moved())
    j.update({{"half_step", step_of(0.5)},
              {"share_within_5_percent", share_within(0.05)},
              {"mode", mode()},
              {"hybrid_stop", hybrid_stop().value}});
  return j;
}

DriftCurve read_drift(const std::string& run) {
  DriftCurve curve;
  const std::string path = run + "/metrics.jsonl";
  if (!std::filesystem::exists(path)) return curve;
  const std::string text = read_text_file(path, std::size_t{4} << 30);
  std::int64_t number = 0;
  for (std::size_t at = 0; at < text.size(); ++number) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) break;  // cut off by a kill
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    if (line.find("\"drift\"") == std::string_view::npos) continue;
    const std::string where = path + ":" + std::to_string(number + 1);
    const nlohmann::json j = parse_json(where, line);
    std::int64_t step = 0;
    std::vector<double> drift;
    try {
      step = j.at("step").get<std::int64_t>();
      curve.total = j.at("of").get<std::int64_t>();
      drift = j.at("drift").get<std::vector<double>>();
    } catch (const nlohmann::json::exception& e) {
      throw data_error(where, json_error_text(e.what()));
    }
    const bool follows = curve.empty() ? step == 0 && drift.size() > 1
                                       : step > curve.steps.back() && drift.size() == curve.by_state.front().size();
    if (!follows || step > curve.total)
      throw data_error(where, "is no drift that follows the one before it: step " + std::to_string(step));
    curve.add(step, std::move(drift));
  }
  return curve;
}

void settle_hybrid_stop(RunOptions& o) {
  if (!o.hybrid_stop || !o.hybrid_stop->automatic) return;
  std::string run = o.drift_from;
  if (run.empty()) run = o.mode == Mode::waypoint ? o.waypoints : run_of(o.teacher);
  if (run.empty())
    throw usage_error("hybrid-stop is auto, wanted also drift-from: the run directory of finetune --drift");
  const DriftCurve curve = read_drift(run);
  if (curve.empty()) throw data_error(run, "has no drift for hybrid-stop auto: 'cald finetune ... --drift' records it");
  if (!curve.ended())
    throw data_error(run, "its drift ends at step " + std::to_string(curve.steps.back()) + " of " +
                              std::to_string(curve.total) + ", wanted that of the whole run for hybrid-stop auto");
  require_same_model(run, curve, o.model);
  o.hybrid_stop = curve.hybrid_stop();
  o.drift_from.clear();
}

}  // namespace cald
