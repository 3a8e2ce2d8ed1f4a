#include "train/batch_input.h"

#include <algorithm>
#include <string>

#include "kernels/transfer.h"

namespace cald {
namespace {

using Ids = std::vector<std::int32_t>;

Ids position_ids(const TokenBatch& b, const EncoderConfig& r) {
  Ids ids(b.input_ids.size());
  for (std::int64_t row = 0; row < b.batch; ++row) {
    auto next = static_cast<std::int32_t>(r.family == Family::roberta ? r.pad_id + 1 : 0);
    for (std::int64_t s = 0; s < b.seq; ++s) {
      const auto i = static_cast<std::size_t>(row * b.seq + s);
      const bool is_pad = r.family == Family::roberta && b.input_ids[i] == r.pad_id;
      ids[i] = is_pad ? static_cast<std::int32_t>(r.pad_id) : next++;
    }
  }
  return ids;
}

Ids ranks(const TokenBatch& b) {
  Ids rank(b.mask.size(), -1);
  for (std::int64_t row = 0; row < b.batch; ++row) {
    std::int32_t next = 0;
    for (std::int64_t s = 0; s < b.seq; ++s) {
      const auto i = static_cast<std::size_t>(row * b.seq + s);
      if (b.mask[i]) rank[i] = next++;
    }
  }
  return rank;
}

/// No look-up asks whether its row is there.
void require_rows(const TokenBatch& b, const EncoderConfig& model) {
  if (b.seq > model.max_tokens())
    throw Error("an input has " + std::to_string(b.seq) + " tokens, but the model has positions for " +
                std::to_string(model.max_tokens()));
  const auto largest = std::max_element(b.type_ids.begin(), b.type_ids.end());
  if (largest != b.type_ids.end() && *largest >= model.type_vocab)
    throw Error("an input has a token of type " + std::to_string(*largest) + ", but the model's type_vocab_size is " +
                std::to_string(model.type_vocab));
}

}  // namespace

LabelledInput make_input(Context& c, std::int64_t batch, std::int64_t seq, const TokenBatch* host,
                         const EncoderConfig& model) {
  if (host) require_rows(*host, model);
  c.set_op("input");
  const auto upload = [&](const Shape& shape, const Ids& values) {
    Tensor t = c.empty(shape, DType::i32);
    if (host) c.launch(Upload{values.data(), t});
    return t;
  };
  const Ids none;
  const Shape tokens{batch, seq}, rows{batch};
  LabelledInput in;
  in.encoder.word_ids = upload(tokens, host ? host->input_ids : none);
  in.encoder.position_ids = upload(tokens, host ? position_ids(*host, model) : none);
  in.encoder.type_ids = upload(tokens, host ? host->type_ids : none);
  in.encoder.mask = upload(tokens, host ? host->mask : none);
  in.encoder.rank = upload(tokens, host ? ranks(*host) : none);
  in.encoder.lengths = upload(rows, host ? host->lengths : none);
  in.encoder.samples = upload(rows, host ? host->sample_ids : none);
  in.labels = upload(rows, host ? host->labels : none);
  return in;
}

}  // namespace cald
