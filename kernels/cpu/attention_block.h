// What the CPU attention kernels share beside SIMD: views of one head, the range of valid keys, and scratch memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/micro_gemm-inl.h"
#include "kernels/cpu/scratch.h"

namespace cald {

/// The rows of one head of one sample; T is float or Bf16.
template <class T>
struct HeadRows {
  T* base;
  std::ptrdiff_t step;
  T* row(std::ptrdiff_t i) const { return base + i * step; }
  MicroRows<T> from(std::ptrdiff_t i) const { return {row(i), step}; }
};
template <class T>
HeadRows<T> head_rows(const TensorRef& t, std::int64_t b, std::int64_t h, std::int64_t head_size) {
  if (!t.present) return {nullptr, 0};
  return {t.as<T>() + b * t.strides[0] + h * head_size, t.strides[1]};
}

/// The keys of a sample: all valid ones lie in [begin, end); with `holes`, not all in there are valid.
struct KeyRange {
  std::ptrdiff_t begin, end;
  bool holes;
};
inline KeyRange key_range(const TensorRef& mask, std::int64_t b, std::int64_t keys) {
  if (!mask.present) return {0, keys, false};
  const std::int32_t* m = mask.as<std::int32_t>() + b * mask.strides[0];
  const std::int64_t step = mask.strides[1];
  std::int64_t begin = 0, end = keys, valid = 0;
  while (begin < keys && m[begin * step] == 0) ++begin;
  while (end > begin && m[(end - 1) * step] == 0) --end;
  for (std::int64_t j = begin; j < end; ++j) valid += m[j * step] != 0;
  return {begin, end, valid != end - begin};
}

struct AttentionSizes {
  std::ptrdiff_t batch, heads, head_size, queries, keys;
  std::ptrdiff_t block;       ///< query rows whose scores exist at a time
  std::ptrdiff_t score_step;  ///< floats between two rows of scores
  std::ptrdiff_t wide_keys, wide_head;
};

/// What of a launch decides how much scratch memory it needs.
struct AttentionKind {
  bool dropout, backward, bf16;
};

inline AttentionKind kind_of(const AttentionForward& a) {
  return {a.dropout.active(), false, a.q.dtype == DType::bf16};
}
inline AttentionKind kind_of(const AttentionBackward& a) {
  return {a.dropout.active(), true, a.q.dtype == DType::bf16};
}

/// The forward's scores of a block should stay in the first cache level beside a panel, but fewer rows than 24 would
/// make loading the panels show. The backward adds to dk and dv once a block, for which longer blocks in the second
/// level are better. Rows of a whole number of pages would share few cache sets, hence the odd line at their end.
template <class Args>
AttentionSizes attention_sizes(const Args& a) {
  const bool backward = kind_of(a).backward;
  AttentionSizes n{};
  n.batch = a.q.dim(0), n.heads = a.heads, n.head_size = a.q.dim(2) / a.heads;
  n.queries = a.q.dim(1), n.keys = a.k.dim(1);
  n.wide_keys = round_up(n.keys, kMaxPanel), n.wide_head = round_up(n.head_size, kMaxPanel);
  n.score_step = n.wide_keys + 16;
  const std::ptrdiff_t fits = (backward ? 18432 : 6144) / n.score_step;
  n.block = std::clamp<std::ptrdiff_t>(fits, 24, backward ? 132 : 60) / 12 * 12;
  return n;
}

/// One thread's scratch. Operands of products are elements of 4 bytes, f32 or pairs of bf16 (of which there are half as
/// many along the depth).
struct AttentionScratch {
  AttentionScratch(const AttentionSizes& n, const AttentionKind& kind, void* memory) : scratch(memory) {
    const bool backward = kind.backward;
    keys_across = scratch.take(n.head_size * n.wide_keys);
    (backward ? values_across : values) = scratch.take(std::max(n.head_size * n.wide_keys, n.keys * n.wide_head));
    scores = scratch.take(n.block * n.score_step);
    bias = scratch.take(n.wide_keys);
    row_scale = scratch.take(n.block);
    if (kind.bf16) {
      left = scratch.take(n.block * n.head_size);
      out = scratch.take(n.block * n.head_size);
    }
    if (kind.dropout) bits = scratch.take<std::uint16_t>(n.wide_keys + 256);
    if (!backward) return;
    keys = scratch.take(n.keys * n.wide_head);
    dscores = scratch.take(n.block * n.score_step);
    if (kind.bf16) across = scratch.take((n.block + 1) / 2 * n.score_step);
    rows = scratch.take(n.block * n.wide_head);
    if (!kind.bf16) return;
    dkeys = scratch.take(n.keys * n.head_size);
    dvalues = scratch.take(n.keys * n.head_size);
  }
  Scratch scratch;
  float *keys_across, *values = nullptr, *values_across = nullptr, *scores, *bias, *row_scale;
  std::uint16_t* bits = nullptr;
  float *keys = nullptr, *dscores = nullptr, *across = nullptr, *rows = nullptr;
  float *left = nullptr, *out = nullptr, *dkeys = nullptr, *dvalues = nullptr;
};

}  // namespace cald
