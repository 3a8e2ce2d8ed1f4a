// The low-rank projection of the sequence axis on the CPU, from register tiles over packed panels.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/low_rank.cpp"
#include "kernels/cpu/simd.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/micro_gemm-inl.h"
#include "kernels/cpu/micro_pack-inl.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/low_rank.h"

#ifndef CALD_KERNELS_CPU_LOW_RANK_TYPES_
#define CALD_KERNELS_CPU_LOW_RANK_TYPES_
namespace cald {

struct LowRankSizes {
  std::ptrdiff_t batch, tokens, width, slots, positions;
};

// A task of y and dx: this many columns of one sample, its tokens in chunks of kChunk.
inline constexpr std::ptrdiff_t kColumns = 128, kChunk = 512;
// A task of de: this many rows, by one panel.
inline constexpr std::ptrdiff_t kRowsOfE = 6;

/// One thread's scratch for a task of y or dx. Operands of products are elements of 4 bytes, f32 or pairs of bf16.
/// `out` holds the f32 sums of what is written in bf16.
struct LowRankScratch {
  LowRankScratch(const LowRankSizes& n, bool bf16, void* memory) : scratch(memory) {
    panels = scratch.take((n.slots > kChunk ? n.slots : kChunk) * kColumns);
    gathered = scratch.take(kChunk * n.slots);
    zeros = scratch.take(n.slots);
    rows = scratch.take<const void*>(kChunk);
    ranks = scratch.take<std::int32_t>(kChunk);
    if (bf16) out = scratch.take((n.slots > kChunk ? n.slots : kChunk) * kColumns);
  }
  /// The chunk's rows, of f32 or bf16.
  template <class T>
  const T** rows_as() const {
    return reinterpret_cast<const T**>(rows);
  }
  Scratch scratch;
  float *panels, *gathered, *zeros, *out = nullptr;
  const void** rows;
  std::int32_t* ranks;
};

/// What the tasks of de share: dy transposed in panels for a group of samples, and which token has which rank.
struct EmbeddingScratch {
  EmbeddingScratch(const LowRankSizes& n, std::int64_t threads, bool bf16, void* memory) : scratch(memory) {
    sample_size = n.width * round_up(n.slots, kMaxPanel);
    const std::ptrdiff_t fits = (std::ptrdiff_t{1} << 20) / (sample_size ? sample_size : 1);
    group = lesser(n.batch, fits < 1 ? 1 : fits);
    panels = scratch.take(group * sample_size);
    zeros = scratch.take(n.width);
    token = scratch.take<std::int32_t>(n.batch * n.positions);
    if (bf16) copied = scratch.take(threads * kRowsOfE * n.width);
  }
  Scratch scratch;
  std::ptrdiff_t sample_size, group;
  float *panels, *zeros;
  float* copied = nullptr;  ///< (threads, kRowsOfE, D): rows of x in bf16 that cannot be read as pairs in place
  std::int32_t* token;      ///< (B, P): the token with this rank, or -1
};

}  // namespace cald
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

using Index = std::ptrdiff_t;

template <class T>
HWY_INLINE T* at(const TensorRef& t, Index b, Index row, Index col) {
  return t.as<T>() + b * t.strides[0] + row * t.strides[1] + col;
}
inline Index rank_of(const TensorRef& rank, Index b, Index s) {
  return rank.as<std::int32_t>()[b * rank.strides[0] + s * rank.strides[1]];
}
/// 1 / sqrt(length), and 0 for a length of 0.
inline float length_scale(const TensorRef& lengths, Index b) {
  const std::int32_t n = lengths.as<std::int32_t>()[b * lengths.strides[0]];
  return n > 0 ? 1.0f / __builtin_sqrtf(static_cast<float>(n)) : 0.0f;
}

/// Rows ranks[0 .. n) of e as columns of a left operand: in place if they follow one another, else gathered; rounded
/// for a product of bf16.
inline MicroLhs<float> rows_of_e(const TensorRef& e, const std::int32_t* ranks, Index n, float* gathered) {
  const Index slots = e.dim(1), step = e.strides[0];
  bool run = true;
  for (Index i = 1; i < n; ++i) run = run && ranks[i] == ranks[0] + i;
  if (run) return {e.f32() + ranks[0] * step, 1, step};
  for (Index i = 0; i < n; ++i)
    __builtin_memcpy(gathered + i * slots, e.f32() + ranks[i] * step, static_cast<std::size_t>(slots) * sizeof(float));
  return {gathered, 1, slots};
}
inline MicroLhs<Bf16Pair> rows_of_e(const TensorRef& e, const std::int32_t* ranks, Index n, Bf16Pair* gathered) {
  const Index slots = e.dim(1), step = e.strides[0];
  for (Index i = 0; i < n; i += 2)
    pair_rows(e.f32() + ranks[i] * step, i + 1 < n ? e.f32() + ranks[i + 1] * step : nullptr, slots,
              gathered + i / 2 * slots);
  return {gathered, 1, slots};
}

template <class T>
inline constexpr bool kIsBf16 = hwy::IsSame<T, Bf16>();

/// Where the f32 sums of rows of `to` come into being: there, or in `buffer` if those are bf16.
template <class T>
HWY_INLINE MicroOut rows_to_compute(T* to, Index step, Index cols, float* buffer) {
  if constexpr (kIsBf16<T>)
    return {buffer, cols};
  else
    return {to, step};
}

/// y[b][:, col0 .. col0 + cols).
template <class T>
void low_rank_forward_as(const LowRankForward& a, const LowRankSizes& n, Index b, Index col0, void* memory) {
  const LowRankScratch s(n, kIsBf16<T>, memory);
  const Index cols = lesser(kColumns, n.width - col0);
  T* y = at<T>(a.y, b, 0, col0);
  MicroOut out = rows_to_compute(y, a.y.strides[1], cols, s.out);
  out.scale = length_scale(a.lengths, b);
  Index token = 0;
  do {
    Index count = 0;
    for (; token < n.tokens && count < kChunk; ++token) {
      const Index r = rank_of(a.rank, b, token);
      if (r < 0) continue;
      s.ranks[count] = static_cast<std::int32_t>(r);
      s.rows[count++] = at<T>(a.x, b, token, col0);
    }
    if (count == 0 && out.add) break;
    const auto panels = elements<T>(s.panels), gathered = elements<T>(s.gathered);
    pack_rows(MicroRows<T>{nullptr, 0, s.rows_as<T>()}, count, cols, panels);
    const MicroLhs<Element<T>> none{gathered, 0, 0};
    micro_gemm(count ? rows_of_e(a.e, s.ranks, count, gathered) : none, {panels, depth_of<T>(count)}, out, n.slots,
               cols, depth_of<T>(count));
    out.add = true;
  } while (token < n.tokens);
  if constexpr (kIsBf16<T>) write_rows(s.out, y, a.y.strides[1], n.slots, cols, false);
}

void low_rank_forward(const LowRankForward& a, const LowRankSizes& n, Index b, Index col0, void* memory) {
  if (a.x.dtype == DType::bf16)
    low_rank_forward_as<Bf16>(a, n, b, col0, memory);
  else
    low_rank_forward_as<float>(a, n, b, col0, memory);
}

/// Rows s.rows[first .. last) of e as a left operand, rounded for a product of bf16.
inline MicroLhs<float> left_rows_of_e(float, const LowRankSizes&, const LowRankScratch& s, Index first, Index) {
  return {nullptr, 0, 1, s.rows_as<float>() + first};
}
inline MicroLhs<Bf16Pair> left_rows_of_e(Bf16, const LowRankSizes& n, const LowRankScratch& s, Index first,
                                         Index last) {
  const Index depth = depth_of<Bf16>(n.slots);
  auto* const rows = elements<Bf16>(s.gathered);
  for (Index i = first; i < last; ++i) pair_row(s.rows_as<float>()[i], n.slots, rows + (i - first) * depth);
  return {rows, depth, 1};
}

/// dx[b][:, col0 .. col0 + cols); T is the operands' type, Out that of dx.
template <class T, class Out>
void low_rank_backward_x_as(const LowRankBackward& a, const LowRankSizes& n, Index b, Index col0, void* memory) {
  const LowRankScratch s(n, kIsBf16<T>, memory);
  const Index cols = lesser(kColumns, n.width - col0);
  pack_rows(MicroRows<T>{at<T>(a.dy, b, 0, col0), a.dy.strides[1]}, n.slots, cols, elements<T>(s.panels));
  __builtin_memset(s.zeros, 0, static_cast<std::size_t>(n.slots) * sizeof(float));
  for (Index t0 = 0; t0 < n.tokens; t0 += kChunk) {
    const Index rows = lesser(kChunk, n.tokens - t0);
    Index first = rows, last = 0;
    for (Index i = 0; i < rows; ++i) {
      const Index r = rank_of(a.rank, b, t0 + i);
      s.rows[i] = r < 0 ? s.zeros : a.e.f32() + r * a.e.strides[0];
      if (r < 0) continue;
      first = lesser(first, i);
      last = i + 1;
    }
    if (!a.dx.add)
      for (Index i = 0; i < rows; ++i)
        if (i < first || i >= last)
          __builtin_memset(at<Out>(a.dx.to, b, t0 + i, col0), 0, static_cast<std::size_t>(cols) * sizeof(Out));
    if (first >= last) continue;
    Out* dx = at<Out>(a.dx.to, b, t0 + first, col0);
    const Index step = a.dx.to.strides[1];
    MicroOut out = rows_to_compute(dx, step, cols, s.out);
    out.add = a.dx.add && !kIsBf16<Out>, out.scale = length_scale(a.lengths, b);
    micro_gemm(left_rows_of_e(T{}, n, s, first, last), {elements<T>(s.panels), depth_of<T>(n.slots)}, out, last - first,
               cols, depth_of<T>(n.slots));
    if constexpr (kIsBf16<Out>) write_rows(s.out, dx, step, last - first, cols, a.dx.add);
  }
}

void low_rank_backward_x(const LowRankBackward& a, const LowRankSizes& n, Index b, Index col0, void* memory) {
  if (a.dx.to.dtype == DType::bf16)
    low_rank_backward_x_as<Bf16, Bf16>(a, n, b, col0, memory);
  else if (a.dy.dtype == DType::bf16)
    low_rank_backward_x_as<Bf16, float>(a, n, b, col0, memory);
  else
    low_rank_backward_x_as<float, float>(a, n, b, col0, memory);
}

/// Packs a panel of dy[b]^T.
template <class T>
void low_rank_pack_dy_as(const LowRankBackward& a, const LowRankSizes& n, Index b, Index slot0, float* sample) {
  const MicroRows<T> rows{at<T>(a.dy, b, slot0, 0), a.dy.strides[1]};
  pack_transposed(rows, n.width, lesser(kPanel, n.slots - slot0), elements<T>(sample) + slot0 * depth_of<T>(n.width));
}
/// `sample`: where all panels of b lie.
void low_rank_pack_dy(const LowRankBackward& a, const LowRankSizes& n, Index b, Index slot0, float* sample) {
  if (a.dy.dtype == DType::bf16)
    low_rank_pack_dy_as<Bf16>(a, n, b, slot0, sample);
  else
    low_rank_pack_dy_as<float>(a, n, b, slot0, sample);
}

/// Adds samples [b0, b1) to rows [row0, row0 + kRowsOfE) of de, columns [slot0, slot0 + kPanel), on thread `part`.
template <class T>
void low_rank_backward_e_as(const LowRankBackward& a, const LowRankSizes& n, const EmbeddingScratch& s, Index part,
                            Index b0, Index b1, Index row0, Index rows, Index slot0) {
  const Index depth = depth_of<T>(n.width);
  MicroOut out{a.de.to.f32() + row0 * a.de.to.strides[0] + slot0, a.de.to.strides[0], a.de.add || b0 > 0};
  for (Index b = b0; b < b1; ++b) {
    const Element<T>* x[kRowsOfE];
    bool any = false;
    for (Index i = 0; i < rows; ++i) {
      const std::int32_t token = s.token[b * n.positions + row0 + i];
      x[i] = token < 0
                 ? elements<T>(s.zeros)
                 : left_row(at<T>(a.x, b, token, 0), n.width, elements<T>(s.copied + (part * kRowsOfE + i) * n.width));
      any = any || token >= 0;
    }
    if (!any && out.add) continue;
    out.scale = length_scale(a.lengths, b);
    micro_gemm({nullptr, 0, 1, x}, {elements<T>(s.panels + (b - b0) * s.sample_size) + slot0 * depth, depth}, out, rows,
               lesser(kPanel, n.slots - slot0), depth);
    out.add = true;
  }
}

void low_rank_backward_e(const LowRankBackward& a, const LowRankSizes& n, const EmbeddingScratch& s, Index part,
                         Index b0, Index b1, Index row0, Index rows, Index slot0) {
  if (a.x.dtype == DType::bf16)
    low_rank_backward_e_as<Bf16>(a, n, s, part, b0, b1, row0, rows, slot0);
  else
    low_rank_backward_e_as<float>(a, n, s, part, b0, b1, row0, rows, slot0);
}

std::ptrdiff_t low_rank_panel() { return kPanel; }

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(low_rank_forward);
HWY_EXPORT(low_rank_backward_x);
HWY_EXPORT(low_rank_pack_dy);
HWY_EXPORT(low_rank_backward_e);
HWY_EXPORT(low_rank_panel);
namespace {

template <class Args>
LowRankSizes sizes_of(const Args& a) {
  return {a.x.dim(0), a.x.dim(1), a.x.dim(2), a.e.dim(1), a.e.dim(0)};
}

std::int64_t column_tasks(const LowRankSizes& n) { return (n.width + kColumns - 1) / kColumns; }

/// Tasks of `work` multiplications each that are worth a thread, some 20 microseconds.
std::int64_t grain_of(std::int64_t work) { return 400'000 / (work + 1); }
std::int64_t column_grain(const LowRankSizes& n) { return grain_of(n.tokens * n.slots * lesser(kColumns, n.width)); }

std::size_t task_scratch(const Exec& exec, const LowRankSizes& n, bool bf16) {
  return static_cast<std::size_t>(part_count(exec, n.batch * column_tasks(n), column_grain(n))) *
         LowRankScratch(n, bf16, nullptr).scratch.used();
}

/// Calls fn(sample, first column, memory) for every task of y or dx.
template <class Fn>
void each_column_task(const Exec& exec, const LowRankSizes& n, bool bf16, const Fn& fn) {
  const std::int64_t columns = column_tasks(n);
  const std::size_t size = LowRankScratch(n, bf16, nullptr).scratch.used();
  auto* memory = static_cast<std::byte*>(exec.workspace);
  parallel_parts(exec, n.batch * columns, column_grain(n),
                 [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
                   for (std::int64_t t = begin; t < end; ++t)
                     fn(t / columns, t % columns * kColumns, memory + static_cast<std::size_t>(part) * size);
                 });
}

/// Fills the table of tokens by rank; returns the number of rows of e that a token names.
std::int64_t tokens_by_rank(const LowRankBackward& a, const LowRankSizes& n, std::int32_t* token) {
  std::fill(token, token + n.batch * n.positions, -1);
  std::int64_t used = 0;
  for (std::int64_t b = 0; b < n.batch; ++b)
    for (std::int64_t s = 0; s < n.tokens; ++s) {
      const std::int64_t r = a.rank.as<std::int32_t>()[b * a.rank.strides[0] + s * a.rank.strides[1]];
      if (r < 0) continue;
      token[b * n.positions + r] = static_cast<std::int32_t>(s);
      used = std::max(used, r + 1);
    }
  return used;
}

void backward_e(const Exec& exec, const LowRankBackward& a, const LowRankSizes& n) {
  const EmbeddingScratch s(n, std::max(exec.threads, 1), is_bf16(a), exec.workspace);
  const std::int64_t used = tokens_by_rank(a, n, s.token), panel = HWY_DYNAMIC_DISPATCH(low_rank_panel)();
  std::fill(s.zeros, s.zeros + n.width, 0.0f);
  if (!a.de.add)
    for (std::int64_t r = n.batch ? used : 0; r < n.positions; ++r)
      std::memset(a.de.to.f32() + r * a.de.to.strides[0], 0, static_cast<std::size_t>(n.slots) * sizeof(float));
  const std::int64_t panels = (n.slots + panel - 1) / panel, row_tasks = (used + kRowsOfE - 1) / kRowsOfE;
  for (std::int64_t b0 = 0; b0 < n.batch; b0 += s.group) {
    const std::int64_t b1 = std::min<std::int64_t>(n.batch, b0 + s.group);
    parallel_for(exec, (b1 - b0) * panels, grain_of(n.width * panel * 4), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t slot0 = t % panels * panel;
        HWY_DYNAMIC_DISPATCH(low_rank_pack_dy)
        (a, n, b0 + t / panels, slot0, s.panels + t / panels * s.sample_size);
      }
    });
    parallel_parts(exec, row_tasks * panels, grain_of((b1 - b0) * kRowsOfE * panel * n.width),
                   [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
                     for (std::int64_t t = begin; t < end; ++t) {
                       const std::int64_t row0 = t / panels * kRowsOfE;
                       HWY_DYNAMIC_DISPATCH(low_rank_backward_e)
                       (a, n, s, part, b0, b1, row0, lesser(kRowsOfE, used - row0), t % panels * panel);
                     }
                   });
  }
}

}  // namespace

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec& exec, const LowRankForward& a) {
  return task_scratch(exec, sizes_of(a), is_bf16(a));
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec& exec, const LowRankBackward& a) {
  const LowRankSizes n = sizes_of(a);
  const bool bf16 = is_bf16(a);
  return std::max(a.dx ? task_scratch(exec, n, bf16) : 0,
                  a.de ? EmbeddingScratch(n, std::max(exec.threads, 1), bf16, nullptr).scratch.used() : 0);
}

template <>
void run<Device::cpu>(Exec& exec, const LowRankForward& a) {
  const bool bf16 = is_bf16(a);
  const LowRankSizes n = sizes_of(a);
  each_column_task(exec, n, bf16, [&](std::int64_t b, std::int64_t col0, void* memory) {
    HWY_DYNAMIC_DISPATCH(low_rank_forward)(a, n, b, col0, memory);
  });
}

template <>
void run<Device::cpu>(Exec& exec, const LowRankBackward& a) {
  const bool bf16 = is_bf16(a);
  const LowRankSizes n = sizes_of(a);
  if (a.dx)
    each_column_task(exec, n, bf16, [&](std::int64_t b, std::int64_t col0, void* memory) {
      HWY_DYNAMIC_DISPATCH(low_rank_backward_x)(a, n, b, col0, memory);
    });
  if (a.de) backward_e(exec, a, n);
}

}  // namespace cald
#endif
