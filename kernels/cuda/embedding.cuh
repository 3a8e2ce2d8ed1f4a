// Embedding look-up, and its scatter without atomics: the first token with an id adds up all tokens with it.
//
// Device memory, with T tokens and D features: the look-up reads T (4 D + 512) bytes for each table and writes 4 T D.
// The scatter reads dy once and the rows that it adds to, 8 T D at most, and, from the caches, the ids for each block,
// ceil(D / 128) T (4 T + 512) at most: for 4096 tokens of 384 features 207 MB.
#pragma once
#include "kernels/cuda/device.cuh"

namespace cald::cuda {

/// ids (B, S).
struct Ids {
  const std::int32_t* data = nullptr;  ///< null: absent
  std::int64_t sample_step = 0, step = 0;
  int tokens = 0;  ///< S

  __device__ std::int64_t at(int i) const { return data[i / tokens * sample_step + i % tokens * step]; }
};

struct Table {
  float* data = nullptr;
  std::int64_t step = 0;
};

struct EmbeddingSum {
  Ids word_ids, position_ids, type_ids;
  Table word, position, type;
  float* y;
  std::int64_t y_sample_step, y_step;
  int features;
};

/// A block for each token.
static __global__ void __launch_bounds__(128) embedding_sum(EmbeddingSum a) {
  const int token = blockIdx.x, tokens = a.word_ids.tokens;
  const float* word = a.word.data + a.word_ids.at(token) * a.word.step;
  const float* position = a.position.data ? a.position.data + a.position_ids.at(token) * a.position.step : nullptr;
  const float* type = a.type.data ? a.type.data + a.type_ids.at(token) * a.type.step : nullptr;
  float* y = a.y + token / tokens * a.y_sample_step + token % tokens * a.y_step;
  for (int j = threadIdx.x; j < a.features; j += blockDim.x) {
    float sum = word[j];
    if (position) sum += position[j];
    if (type) sum += type[j];
    y[j] = sum;
  }
}

struct EmbeddingScatter {
  Ids ids;
  const float* dy;
  std::int64_t dy_sample_step, dy_step;
  Table table;
  int count, features;  ///< tokens in all
  std::int64_t frozen;
  bool by_rows;  ///< the sum becomes the row of the table that has the first token's number
};

/// rows[id] = the number of the first token with that id; all were -1, the largest unsigned. A minimum does not depend
/// on the order of the threads.
static __global__ void __launch_bounds__(128)
    note_first_tokens(Ids ids, int count, std::int64_t frozen, unsigned* rows) {
  const int token = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (token < count && ids.at(token) != frozen) atomicMin(&rows[ids.at(token)], static_cast<unsigned>(token));
}

constexpr int kScatterThreads = 128;

/// Block (token, part of the features): a token that an earlier one has the id of leaves; the first one adds the rows
/// of all with its id, in their order, and adds their sum to the table's row.
static __global__ void __launch_bounds__(kScatterThreads) embedding_scatter(EmbeddingScatter a) {
  CALD_SHARED(int, match, [kScatterThreads]);
  const int token = blockIdx.x, feature = static_cast<int>(blockIdx.y) * kScatterThreads + threadIdx.x;
  const std::int64_t id = a.ids.at(token);
  bool seen = id == a.frozen;
  for (int i = threadIdx.x; i < token; i += kScatterThreads) seen = seen || a.ids.at(i) == id;
  if (__syncthreads_or(seen)) return;
  float sum = 0;
  for (int first = token; first < a.count; first += kScatterThreads) {
    const int mine = first + static_cast<int>(threadIdx.x);
    const bool same = mine < a.count && a.ids.at(mine) == id;
    if (!__syncthreads_or(same)) continue;  // a barrier, too: the last matches are no longer needed
    match[threadIdx.x] = same;
    __syncthreads();
    if (feature >= a.features) continue;
    for (int i = 0; i < kScatterThreads; ++i) {
      const int at = first + i;
      if (match[i]) sum += a.dy[at / a.ids.tokens * a.dy_sample_step + at % a.ids.tokens * a.dy_step + feature];
    }
  }
  if (feature >= a.features) return;
  float& to = a.table.data[(a.by_rows ? token : id) * a.table.step + feature];
  to = a.by_rows ? sum : to + sum;
}

}  // namespace cald::cuda
