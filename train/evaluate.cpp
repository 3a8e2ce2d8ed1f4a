#include "train/evaluate.h"

#include <algorithm>
#include <cmath>

#include "kernels/transfer.h"
#include "train/batch_input.h"

namespace cald {
namespace {

PlanKey key_of(std::int64_t batch, std::int64_t seq) { return {"evaluate", batch, seq}; }

/// Logits of one batch, row-major; with a null `host` only its memory is taken.
void forward_batch(Context& c, const Encoder& model, std::int64_t batch, std::int64_t seq, const TokenBatch* host,
                   std::vector<float>& logits) {
  const Context::Scope scope(c, "evaluate");
  c.gather("forward", [&] {
    const LabelledInput in = make_input(c, batch, seq, host, model.config());
    Tape tape(c, false);
    const EncoderOutput out = model.forward(tape, in.encoder, {}, false);
    if (host) c.launch(Download{out.logits, logits.data()});
  });
  c.synchronize();
}

/// Softmax in f64, and its log at `label`.
std::vector<float> probabilities_of(const float* logits, std::size_t classes, std::int32_t label, double& log_p) {
  const double top = *std::max_element(logits, logits + classes);
  double sum = 0;
  for (std::size_t c = 0; c < classes; ++c) sum += std::exp(logits[c] - top);
  std::vector<float> p(classes);
  for (std::size_t c = 0; c < classes; ++c) p[c] = static_cast<float>(std::exp(logits[c] - top) / sum);
  log_p = label >= 0 ? logits[label] - top - std::log(sum) : 0;
  return p;
}

/// Plans each batch, longest first.
void plan_batches(const Encoder& model, const EncodedTask& task, const std::vector<std::vector<std::int64_t>>& batches,
                  PlannedMemory& memory) {
  for (const auto& rows : batches) {
    const auto batch = static_cast<std::int64_t>(rows.size());
    const auto seq = static_cast<std::int64_t>(task.encodings[static_cast<std::size_t>(rows.front())].ids.size());
    std::vector<float> none;
    memory.plan(key_of(batch, seq), [&](Context& c) { forward_batch(c, model, batch, seq, nullptr, none); });
  }
}

/// Error that names the first of the batch's examples whose logits are not finite, and the op that made it so.
void require_finite(const Encoder& model, const EncodedTask& task, const std::vector<std::int64_t>& rows,
                    const TokenBatch& batch, const std::vector<float>& logits, const Exec& exec) {
  const auto classes = static_cast<std::ptrdiff_t>(model.config().labels.size());
  std::int64_t first = task.size();
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r) * classes;
    if (!std::all_of(begin, begin + classes, [](float l) { return std::isfinite(l); }))
      first = std::min(first, rows[r]);
  }
  if (first == task.size()) return;
  std::string why = "its logits are not finite, although every op's output is";
  try {
    HeapAllocator heap(exec.device);
    Context checking(exec, heap);
    checking.check_finite(true);
    std::vector<float> again(logits.size());
    forward_batch(checking, model, batch.batch, batch.seq, &batch, again);
  } catch (const Error& e) {
    why = e.what();
  }
  throw Error((task.path.empty() ? "" : task.path + ": ") + "example " + std::to_string(first + 1) + ": " + why);
}

}  // namespace

void plan_evaluation(const Encoder& model, const EncodedTask& task, std::int64_t batch_size, PlannedMemory& memory) {
  plan_batches(model, task, batches_by_length(task, batch_size), memory);
}

Evaluation evaluate(const Encoder& model, const EncodedTask& task, std::int64_t batch_size, PlannedMemory& memory) {
  const auto batches = batches_by_length(task, batch_size);
  plan_batches(model, task, batches, memory);
  const std::size_t classes = model.config().labels.size();
  Evaluation e;
  e.predictions.resize(static_cast<std::size_t>(task.size()));
  e.probabilities.resize(static_cast<std::size_t>(task.size()));
  std::vector<double> losses(static_cast<std::size_t>(task.size()));
  std::int64_t correct = 0;
  std::vector<float> logits;
  for (const auto& rows : batches) {
    const TokenBatch batch = gather(task, rows, model.config().pad_id);
    logits.resize(rows.size() * classes);
    memory.run(key_of(batch.batch, batch.seq),
               [&](Context& c) { forward_batch(c, model, batch.batch, batch.seq, &batch, logits); });
    require_finite(model, task, rows, batch, logits, memory.exec());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const auto example = static_cast<std::size_t>(rows[r]);
      const std::int32_t label = task.labels[example];
      const float* l = logits.data() + r * classes;
      double log_p = 0;
      e.probabilities[example] = probabilities_of(l, classes, label, log_p);
      e.predictions[example] = static_cast<std::int32_t>(std::max_element(l, l + classes) - l);
      losses[example] = -log_p;
      if (label < 0) continue;
      ++e.examples;
      correct += e.predictions[example] == label;
    }
  }
  for (double l : losses) e.loss += l;  // by example, so that the batch size does not change the order
  if (e.examples > 0) {
    e.accuracy = static_cast<double>(correct) / static_cast<double>(e.examples);
    e.loss /= static_cast<double>(e.examples);
  }
  return e;
}

}  // namespace cald
