// Metrics and predictions of a classifier on a data set.
#pragma once
#include <vector>

#include "models/encoder.h"
#include "train/planned_memory.h"
#include "train/task.h"

namespace cald {

struct Evaluation {
  double accuracy = 0;  ///< share of the examples, 0..1
  double loss = 0;      ///< mean cross-entropy, nats
  std::int64_t examples = 0;
  std::vector<std::int32_t> predictions;          ///< by example
  std::vector<std::vector<float>> probabilities;  ///< by example, then class
};

/// Plans the memory of an evaluation with these batches, so that the arena is known before the first of them.
void plan_evaluation(const Encoder& model, const EncodedTask& task, std::int64_t batch_size, PlannedMemory& memory);

/// Runs without dropout. Labels below 0 (unlabelled examples) count in neither accuracy nor loss. Error if a logit is
/// not finite: it names the example and the op.
Evaluation evaluate(const Encoder& model, const EncodedTask& task, std::int64_t batch_size, PlannedMemory& memory);

}  // namespace cald
