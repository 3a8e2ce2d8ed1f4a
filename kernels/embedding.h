// Embedding look-up and its deterministic scatter.
#pragma once
#include "kernels/launch.h"

namespace cald {

/// y (B, S, D) = word[word_ids] + position[position_ids] + type[type_ids]. ids: (B, S) i32. position and type (with
/// their ids) may be absent. Ids are checked by the caller against the tables' rows.
struct EmbeddingForward {
  static constexpr const char* name = "embedding";
  TensorRef word_ids, position_ids, type_ids;
  TensorRef word, position, type;
  TensorRef y;
};
Cost cost_of(const EmbeddingForward&);

/// dtable (V, D) (set or add): row ids[i] receives the sum of dy's rows i with that id, in the order of i, whatever the
/// number of threads. Set also zeroes the rows that no id names. The row `frozen` gets no gradient (-1: every row
/// does): transformers trains no embedding of the pad (torch's padding_idx).
///
/// With `rows` the gradient is by rows (see AdamWSlot), for a table of which a batch names few: rows (V) i32 receives
/// for each row the first i with its id, or -1, and dtable (N, D), N ids, the sums at these i; set only, and what lies
/// at other i is undefined.
struct EmbeddingBackward {
  static constexpr const char* name = "embedding_backward";
  TensorRef ids, dy;
  GradRef dtable;
  std::int64_t frozen = -1;
  TensorRef rows = {};
};
Cost cost_of(const EmbeddingBackward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const EmbeddingBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const EmbeddingBackward&);

}  // namespace cald
