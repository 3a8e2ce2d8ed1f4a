// Attention on the CPU: a task is one head of one sample, or a part of its queries in the forward.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cpp"
#include "kernels/cpu/simd.h"

#include <initializer_list>
#include <string>

#include "kernels/attention.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/attention_rows-inl.h"
#include "kernels/cpu/micro_gemm-inl.h"
#include "kernels/cpu/micro_pack-inl.h"
#include "kernels/cpu/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// Which keys a query sees: the first seen_by() of the sample's range.
struct BlockKeys {
  KeyRange range;
  Index offset;  ///< causal: query i sees keys below i + offset (counted from range.begin)
  bool causal;
  Index seen_by(Index query) const {
    const Index all = range.end - range.begin;
    if (!causal) return all;
    const Index n = lesser(query + offset, all);
    return n < 0 ? 0 : n;
  }
};

template <class Args>
BlockKeys block_keys(const Args& a, const AttentionSizes& n, Index b) {
  const KeyRange r = key_range(a.mask, b, n.keys);
  return {r, n.keys - n.queries + 1 - r.begin, a.causal};
}

/// bias[j] = 0 for the valid keys of the range and -inf for its holes; null if it has none.
inline const float* fill_bias(const TensorRef& mask, const KeyRange& r, Index b, float* bias) {
  if (!r.holes) return nullptr;
  const std::int32_t* m = mask.as<std::int32_t>() + b * mask.strides[0];
  const Index n = r.end - r.begin, step = mask.strides[1];
  for (Index j = 0; j < n; ++j) bias[j] = m[(r.begin + j) * step] ? 0.0f : -kInfinity;
  for (Index j = n; j < round_up(n, kPanel); ++j) bias[j] = -kInfinity;
  return bias;
}

/// Draws dropout for the keys of a range.
struct KeyDropout {
  const Dropout& dropout;
  std::uint32_t sample;
  Index heads_first;  ///< head * queries
  Index first_key;
  std::uint16_t* bits;

  /// Dropout of a query's row, whose first element is first_key.
  RowDropout row(Index query, Index n) const {
    if (!bits) return {nullptr, 0};
    const Index skipped = first_key % 8;
    fill_dropout_bits(dropout.key, sample, static_cast<std::uint32_t>(heads_first + query),
                      static_cast<std::uint32_t>(first_key - skipped), n + skipped, bits);
    return {bits + skipped, dropout.threshold()};
  }
  float scale() const { return bits ? dropout.scale() : 1.0f; }
};

template <class Args>
KeyDropout key_dropout(const Args& a, const AttentionSizes& n, Index b, Index h, Index first_key, std::uint16_t* bits) {
  const bool on = a.dropout.active();
  const auto sample = on ? a.samples.template as<std::int32_t>()[b * a.samples.strides[0]] : 0;
  return {a.dropout, static_cast<std::uint32_t>(sample), h * n.queries, first_key, on ? bits : nullptr};
}

/// f32 rows are computed where they lie, those of bf16 in `buffer`, from where finish_rows() takes them.
inline MicroOut rows_to_compute(const HeadRows<float>& to, Index first, bool add, Index, float*) {
  return {to.row(first), to.step, add};
}
inline MicroOut rows_to_compute(const HeadRows<Bf16>&, Index, bool, Index size, float* buffer) {
  return {buffer, size};
}
inline void finish_rows(const HeadRows<float>&, Index, bool, Index, Index, const float*) {}
inline void finish_rows(const HeadRows<Bf16>& to, Index first, bool add, Index n, Index size, const float* buffer) {
  write_rows(buffer, to.row(first), to.step, n, size, add);
}

/// Queries [q0, q1) of head h of sample b. In bf16 the probabilities are rounded for the product with v.
template <class T>
void attention_forward_as(const AttentionForward& a, const AttentionSizes& n, Index b, Index h, Index q0, Index q1,
                          void* memory) {
  const AttentionScratch s(n, kind_of(a), memory);
  const Index size = n.head_size, depth = depth_of<T>(size);
  const auto q = head_rows<T>(a.q, b, h, size), k = head_rows<T>(a.k, b, h, size), v = head_rows<T>(a.v, b, h, size);
  const auto y = head_rows<T>(a.y, b, h, size);
  const BlockKeys keys = block_keys(a, n, b);
  const Index all = keys.seen_by(q1 - 1);
  prefetch_rows(q.from(0), q0, n.block, q1, size);
  pack_transposed(k.from(keys.range.begin), size, all, elements<T>(s.keys_across));
  pack_rows(v.from(keys.range.begin), all, size, elements<T>(s.values));
  const float* bias = fill_bias(a.mask, keys.range, b, s.bias);
  const KeyDropout dropout = key_dropout(a, n, b, h, keys.range.begin, s.bits);
  float* lse = a.lse.f32() + b * a.lse.strides[0] + h * a.lse.strides[1];
  for (Index i0 = q0; i0 < q1; i0 += n.block) {
    const Index rows = lesser(n.block, q1 - i0), seen = keys.seen_by(i0 + rows - 1);
    const Index padded = round_up(seen, kPanel);
    prefetch_rows(q.from(0), i0 + rows, n.block, q1, size);
    micro_gemm(left_rows(q.from(i0), rows, size, elements<T>(s.left)), {elements<T>(s.keys_across), depth},
               {s.scores, n.score_step, false, true, a.scale}, rows, seen, depth);
    for (Index i = 0; i < rows; ++i) {
      float* row = s.scores + i * n.score_step;
      for (Index j = keys.seen_by(i0 + i); j < padded; ++j) row[j] = -kInfinity;
      s.row_scale[i] = softmax_row<T>(row, padded, bias, dropout.row(i0 + i, padded), lse + i0 + i);
    }
    MicroOut out = rows_to_compute(y, i0, false, size, s.out);
    out.row_scale = s.row_scale, out.scale = dropout.scale();
    micro_gemm(MicroLhs<Element<T>>{elements<T>(s.scores), n.score_step, 1}, {elements<T>(s.values), depth_of<T>(all)},
               out, rows, size, depth_of<T>(seen));
    finish_rows(y, i0, false, rows, size, s.out);
  }
}

void attention_forward(const AttentionForward& a, const AttentionSizes& n, Index b, Index h, Index q0, Index q1,
                       void* memory) {
  if (a.q.dtype == DType::bf16)
    attention_forward_as<Bf16>(a, n, b, h, q0, q1, memory);
  else
    attention_forward_as<float>(a, n, b, h, q0, q1, memory);
}

template <class T>
void zero_rows(const HeadRows<T>& x, Index begin, Index end, Index n) {
  for (Index i = begin; i < end; ++i) __builtin_memset(x.row(i), 0, static_cast<std::size_t>(n) * sizeof(T));
}

/// Sets to zero what no block of queries will set; true if the first block shall set the rest.
template <class T>
bool prepare_key_gradient(const GradRef& to, const HeadRows<T>& x, const BlockKeys& keys, const AttentionSizes& n) {
  if (!to || to.add) return false;
  const bool whole = keys.causal || n.queries == 0;
  zero_rows(x, 0, whole ? n.keys : keys.range.begin, n.head_size);
  if (!whole) zero_rows(x, keys.range.end, n.keys, n.head_size);
  return !whole;
}

/// The f32 sums of dk and dv beside gradients in bf16 begin at 0, unless the first block sets them.
inline void start_key_gradient(const AttentionScratch& s, bool set_dk, bool set_dv, Index n) {
  if (s.dkeys && !set_dk) __builtin_memset(s.dkeys, 0, static_cast<std::size_t>(n) * sizeof(float));
  if (s.dvalues && !set_dv) __builtin_memset(s.dvalues, 0, static_cast<std::size_t>(n) * sizeof(float));
}

/// Head h of sample b; y is not needed (see softmax_backward_row). The rows of dk and dv are summed over blocks of
/// queries in their order. In bf16 the probabilities and the scores' gradients are rounded for their products.
template <class T>
void attention_backward_as(const AttentionBackward& a, const AttentionSizes& n, Index b, Index h, void* memory) {
  const AttentionScratch s(n, kind_of(a), memory);
  const Index size = n.head_size, depth = depth_of<T>(size);
  const auto q = head_rows<T>(a.q, b, h, size), k = head_rows<T>(a.k, b, h, size), v = head_rows<T>(a.v, b, h, size);
  const auto dy = head_rows<T>(a.dy, b, h, size), dq = head_rows<T>(a.dq.to, b, h, size);
  const auto dk = head_rows<T>(a.dk.to, b, h, size), dv = head_rows<T>(a.dv.to, b, h, size);
  const BlockKeys keys = block_keys(a, n, b);
  const Index first = keys.range.begin, all = keys.range.end - first;
  pack_transposed(k.from(first), size, all, elements<T>(s.keys_across));
  pack_transposed(v.from(first), size, all, elements<T>(s.values_across));
  pack_rows(k.from(first), all, size, elements<T>(s.keys));
  const float* bias = fill_bias(a.mask, keys.range, b, s.bias);
  const KeyDropout dropout = key_dropout(a, n, b, h, first, s.bits);
  const float* lse = a.lse.f32() + b * a.lse.strides[0] + h * a.lse.strides[1];
  const bool set_dk = prepare_key_gradient(a.dk, dk, keys, n), set_dv = prepare_key_gradient(a.dv, dv, keys, n);
  start_key_gradient(s, set_dk, set_dv, all * size);

  for (Index i0 = 0; i0 < n.queries; i0 += n.block) {
    const Index rows = lesser(n.block, n.queries - i0), seen = keys.seen_by(i0 + rows - 1);
    const Index padded = round_up(seen, kPanel);
    micro_gemm(left_rows(q.from(i0), rows, size, elements<T>(s.left)), {elements<T>(s.keys_across), depth},
               {s.scores, n.score_step, false, true, a.scale}, rows, seen, depth);
    micro_gemm(left_rows(dy.from(i0), rows, size, elements<T>(s.left)), {elements<T>(s.values_across), depth},
               {s.dscores, n.score_step, false, true}, rows, seen, depth);
    for (Index i = 0; i < rows; ++i) {
      float* row = s.scores + i * n.score_step;
      for (Index j = keys.seen_by(i0 + i); j < padded; ++j) row[j] = -kInfinity;
      softmax_backward_row(row, s.dscores + i * n.score_step, padded, bias, lse[i0 + i], dropout.row(i0 + i, padded));
    }
    if (a.dk) {
      pack_rows(q.from(i0), rows, size, elements<T>(s.rows));
      MicroOut out = rows_to_compute(dk, first, true, size, s.dkeys);
      out.add = !(set_dk && i0 == 0), out.scale = a.scale * dropout.scale();
      micro_gemm(left_transposed(s.dscores, n.score_step, rows, padded, elements<T>(s.across)),
                 {elements<T>(s.rows), depth_of<T>(rows)}, out, seen, size, depth_of<T>(rows));
    }
    if (a.dv) {
      pack_rows(dy.from(i0), rows, size, elements<T>(s.rows));
      MicroOut out = rows_to_compute(dv, first, true, size, s.dvalues);
      out.add = !(set_dv && i0 == 0), out.scale = dropout.scale();
      micro_gemm(left_transposed(s.scores, n.score_step, rows, padded, elements<T>(s.across)),
                 {elements<T>(s.rows), depth_of<T>(rows)}, out, seen, size, depth_of<T>(rows));
    }
    if (a.dq) {  // the last of the three: left_sums rounds in place
      MicroOut out = rows_to_compute(dq, i0, a.dq.add, size, s.out);
      out.scale = a.scale * dropout.scale();
      micro_gemm(left_sums(s.dscores, n.score_step, rows, padded, elements<T>(nullptr)),
                 {elements<T>(s.keys), depth_of<T>(all)}, out, rows, size, depth_of<T>(seen));
      finish_rows(dq, i0, a.dq.add, rows, size, s.out);
    }
  }
  if (a.dk) finish_rows(dk, first, a.dk.add, all, size, s.dkeys);
  if (a.dv) finish_rows(dv, first, a.dv.add, all, size, s.dvalues);
}

void attention_backward(const AttentionBackward& a, const AttentionSizes& n, Index b, Index h, void* memory) {
  if (a.q.dtype == DType::bf16)
    attention_backward_as<Bf16>(a, n, b, h, memory);
  else
    attention_backward_as<float>(a, n, b, h, memory);
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(attention_forward);
HWY_EXPORT(attention_backward);
namespace {

/// The forward cuts long sequences of queries into several tasks, long enough that packing keys and values again for
/// each does not show.
struct QueryParts {
  explicit QueryParts(const AttentionSizes& n)
      : count(std::max<std::int64_t>(1, (n.queries + 256) / 512)), size((n.queries + count - 1) / count) {}
  std::int64_t count, size;
};

/// A launch's tasks and the threads they are worth.
struct Plan {
  template <class Args>
  Plan(const Exec& exec, const Args& a, std::int64_t parts_of_head, std::int64_t products)
      : sizes(attention_sizes(a)),
        tasks(sizes.batch * sizes.heads * parts_of_head),
        scratch(AttentionScratch(sizes, kind_of(a), nullptr).scratch.used()) {
    const std::int64_t work = products * sizes.queries * sizes.keys * sizes.head_size / parts_of_head;
    threads = part_count(exec, tasks, kWorthAThread / (work + 1));
  }
  static constexpr std::int64_t kWorthAThread = 400'000;  // multiplications, some 20 microseconds

  /// Calls fn(task, memory). Tasks go round the threads, each round beginning with another one: the heads of a long
  /// sample spread over all threads, and so do the parts of causal attention, of which the later ones are longer.
  template <class Fn>
  void run_tasks(Exec& exec, const Fn& fn) const {
    auto* memory = static_cast<std::byte*>(exec.workspace);
    parallel_for(exec, tasks ? threads : 0, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        for (std::int64_t round = 0; round * threads < tasks; ++round) {
          const std::int64_t t = round * threads + (p + round) % threads;
          if (t < tasks) fn(t, memory + static_cast<std::size_t>(p) * scratch);
        }
    });
  }
  std::size_t workspace() const { return static_cast<std::size_t>(threads) * scratch; }

  AttentionSizes sizes;
  std::int64_t tasks, threads;
  std::size_t scratch;
};

void check_dtypes(const char* kernel, std::initializer_list<const TensorRef*> operands) {
  const DType first = (*operands.begin())->dtype;
  for (const TensorRef* t : operands)
    if (t->present && (t->dtype != first || (first != DType::f32 && first != DType::bf16)))
      throw Error(std::string(kernel) + ": operands of " + name_of(first) + " and " + name_of(t->dtype) +
                  ", wanted all f32 or all bf16");
}

Plan plan_of(const Exec& exec, const AttentionForward& a) { return {exec, a, QueryParts(attention_sizes(a)).count, 2}; }
Plan plan_of(const Exec& exec, const AttentionBackward& a) { return {exec, a, 1, 5}; }

}  // namespace

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec& exec, const AttentionForward& a) {
  return plan_of(exec, a).workspace();
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec& exec, const AttentionBackward& a) {
  return plan_of(exec, a).workspace();
}

template <>
void run<Device::cpu>(Exec& exec, const AttentionForward& a) {
  check_dtypes(AttentionForward::name, {&a.q, &a.k, &a.v, &a.y});
  const Plan plan = plan_of(exec, a);
  const AttentionSizes& n = plan.sizes;
  const QueryParts parts(n);
  plan.run_tasks(exec, [&](std::int64_t t, void* memory) {
    const std::int64_t head = t / parts.count, q0 = t % parts.count * parts.size;
    const std::int64_t q1 = std::min<std::int64_t>(n.queries, q0 + parts.size);
    if (q0 < q1) HWY_DYNAMIC_DISPATCH(attention_forward)(a, n, head / n.heads, head % n.heads, q0, q1, memory);
  });
}

template <>
void run<Device::cpu>(Exec& exec, const AttentionBackward& a) {
  check_dtypes(AttentionBackward::name, {&a.q, &a.k, &a.v, &a.dy, &a.dq.to, &a.dk.to, &a.dv.to});
  const Plan plan = plan_of(exec, a);
  const AttentionSizes& n = plan.sizes;
  plan.run_tasks(exec, [&](std::int64_t t, void* memory) {
    HWY_DYNAMIC_DISPATCH(attention_backward)(a, n, t / n.heads, t % n.heads, memory);
  });
}

}  // namespace cald
#endif
