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
    scatter(g, 0, word_ids, dy, word_pad);
    scatter(g, 1, position_ids, dy, position_pad);
    scatter(g, 2, type_ids, dy, -1);
  }

 private:
  static void scatter(Grads& g, int input, const Tensor& ids, const Tensor& dy, std::int64_t frozen) {
    if (!g.wanted(input)) return;
    if (const Grads::ByRows d = g.by_rows(input, ids.numel()))
      g.launch(EmbeddingBackward{ids, dy, d.grad, frozen, d.rows});
    else
      g.launch(EmbeddingBackward{ids, dy, g[input], frozen});
  }
};

}  // namespace cald
