// From a padded batch on the host to the encoder's input on the device.
#pragma once
#include "data/task_data.h"
#include "models/encoder.h"

namespace cald {

struct LabelledInput {
  EncoderInput encoder;
  Tensor labels;  ///< (B) i32
};

/// Takes memory for a (batch, seq) input; without `host` (a shape-only run) nothing is copied.
///
/// Position ids follow transformers: BERT counts from the row's start, pads or not; RoBERTa counts the ids that are not
/// the pad id, from pad_id + 1 on, and gives pads pad_id. Error: a position or a type that the model's tables lack.
LabelledInput make_input(Context& c, std::int64_t batch, std::int64_t seq, const TokenBatch* host,
                         const EncoderConfig& model);

}  // namespace cald
