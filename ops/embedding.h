// The sum of word, position and token-type embeddings.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/embedding.h"

namespace cald {

/// y (B, S, D) = word[word_ids] + position[position_ids] + type[type_ids]; ids (B, S) i32. `position` and `type` may be
/// absent, with their ids. The rows word_pad and position_pad are not trained (-1: all are).
struct EmbeddingSum {
  static constexpr const char* name = "embedding";
  Tensor word_ids, position_ids, type_ids;
  std::int64_t word_pad = -1, position_pad = -1;

  Tensor forward(Forward& f, const Tensor& word, const Tensor& position, const Tensor& type) const {
    CHECK_THAT(word_ids.rank() == 2, "word_ids", "(B, S)");
    Tensor y = f.empty({word_ids.dim(0), word_ids.dim(1), word.dim(1)});
    f.launch(EmbeddingForward{word_ids, position_ids, type_ids, word, position, type, y});
    return y;
  }
  void backward(const Saved&, const Tensor& dy, Grads& g) const {
    if (const GradRef dword = g[0]) g.launch(EmbeddingBackward{word_ids, dy, dword, word_pad});
    if (const GradRef dposition = g[1]) g.launch(EmbeddingBackward{position_ids, dy, dposition, position_pad});
    if (const GradRef dtype = g[2]) g.launch(EmbeddingBackward{type_ids, dy, dtype});
  }
};

}  // namespace cald
