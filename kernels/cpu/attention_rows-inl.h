// The row-wise half of attention on the CPU: softmax with mask and dropout, and its gradient. Rows are whole panels
// long, filled up with scores of -inf. Included once per instruction set (see simd.h).
#include "kernels/attention.h"
#include "kernels/cpu/micro_gemm-inl.h"
#include "kernels/cpu/micro_pack-inl.h"
#include "kernels/cpu/simd.h"

#if defined(CALD_KERNELS_CPU_ATTENTION_ROWS_INL_) == defined(HWY_TARGET_TOGGLE)
#ifdef CALD_KERNELS_CPU_ATTENTION_ROWS_INL_
#undef CALD_KERNELS_CPU_ATTENTION_ROWS_INL_
#else
#define CALD_KERNELS_CPU_ATTENTION_ROWS_INL_
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

using Index = std::ptrdiff_t;
inline constexpr float kInfinity = __builtin_huge_valf();

/// Dropout of one row, all but the scale, which the products apply; without dropout `bits` is null.
struct RowDropout {
  const std::uint16_t* bits;
  std::uint32_t threshold;
  HWY_INLINE FloatVec operator()(FloatVec x, Index j) const {
    return bits ? drop(Floats(), x, bits + j, threshold) : x;
  }
};

/// e^x for x < 88 with a relative error below 9e-8 + 1.4e-8 |x|, which is nothing beside the error of a score of that
/// size, at two thirds of exp_bounded()'s cost: 0 below -87, NaN for a NaN. The fit is a minimax one of degree 6.
HWY_INLINE FloatVec exp_of_score(FloatVec x) {
  const Floats d;
  const FloatVec y = power_of_two(d, x, Set(d, 1.44269504f), 1.53458124e-4f, 1.33999309e-3f, 9.61848907e-3f,
                                  5.55032864e-2f, 0.240226462f, 0.693147182f, 1.0f);
  return IfThenZeroElse(Lt(x, Set(d, -87.0f)), y);
}

/// Writes a panel of a row, columns [j, j + kPanel) of s: as f32, or rounded to bf16, whose row begins where s does.
/// What lies behind in s is yet to be read, so it must not be touched.
template <class T>
HWY_INLINE void store_panel(FloatVec low, FloatVec high, float* s, Index j) {
  if constexpr (hwy::IsSame<T, Bf16>()) {
    store_rounded(low, high, reinterpret_cast<Bf16*>(s) + j);
  } else {
    StoreU(low, Floats(), s + j);
    StoreU(high, Floats(), s + j + kMicroLanes);
  }
}

/// A row whose scores have no maximum. Without any key at all it becomes zeros, which are zeros as pairs of bf16, too;
/// otherwise scores are NaN, and so is what is returned. Returns what softmax_row() does.
inline float row_without_maximum(float* s, Index n, float* lse) {
  float total = 0.0f;
  for (Index j = 0; j < n; ++j) {
    s[j] = s[j] == -kInfinity ? 0.0f : s[j];
    total += s[j];
  }
  *lse = total == 0.0f ? -kInfinity : total;
  return total;
}

/// Turns n scores into exp(score - max), then dropout, for products of T (see store_panel). Returns 1 / sum, or 0 if
/// there is no key at all; *lse receives the log of the sum of exponentials.
template <class T>
HWY_INLINE float softmax_row(float* s, Index n, const float* bias, const RowDropout& dropout, float* lse) {
  const Floats d;
  FloatVec top = Set(d, -kInfinity);
  for (Index j = 0; j < n; j += kMicroLanes) {
    FloatVec x = LoadU(d, s + j);
    if (bias) {
      x = Add(x, LoadU(d, bias + j));
      StoreU(x, d, s + j);
    }
    top = Max(x, top);  // in this order of operands NaNs are passed over, and show in the sum
  }
  top = MaxOfLanes(d, top);
  if (GetLane(top) == -kInfinity) return row_without_maximum(s, n, lse);
  FloatVec sum = Zero(d);
  for (Index j = 0; j < n; j += kPanel) {
    const Index next = j + kMicroLanes;
    const FloatVec low = exp_of_score(Sub(LoadU(d, s + j), top)), high = exp_of_score(Sub(LoadU(d, s + next), top));
    sum = Add(Add(sum, low), high);
    store_panel<T>(dropout(low, j), dropout(high, next), s, j);
  }
  const float total = GetLane(SumOfLanes(d, sum));
  *lse = GetLane(top) + __builtin_logf(total);
  return 1.0f / total;
}

/// From scores s and g = dy v^T to the dropped probabilities (in s) and the gradient of the scores (in g), both yet to
/// be multiplied by dropout's scale: ds = p (dp - delta), dp = dropout(g), delta = sum_j p dp.
///
/// delta equals sum(dy y). Taken from p, and p divided by its own sum, the errors of lse and y cancel: a row's ds sum
/// to zero, and one key alone has none.
inline void softmax_backward_row(float* s, float* g, Index n, const float* bias, float lse, const RowDropout& dropout) {
  const Floats d;
  // Without any key lse is -inf; with +inf in its place every p becomes 0.
  const FloatVec l = Set(d, lse == -kInfinity ? kInfinity : lse);
  FloatVec sum = Zero(d), weighted = Zero(d);
  for (Index j = 0; j < n; j += kMicroLanes) {
    FloatVec x = LoadU(d, s + j);
    if (bias) x = Add(x, LoadU(d, bias + j));
    const FloatVec p = exp_of_score(Sub(x, l));
    const FloatVec dp = dropout(LoadU(d, g + j), j);
    sum = Add(sum, p);
    weighted = MulAdd(p, dp, weighted);
    StoreU(p, d, s + j);
    StoreU(dp, d, g + j);
  }
  const float total = GetLane(SumOfLanes(d, sum));
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  const FloatVec scale = Set(d, inverse), delta = Set(d, GetLane(SumOfLanes(d, weighted)) * inverse);
  for (Index j = 0; j < n; j += kMicroLanes) {
    const FloatVec p = Mul(LoadU(d, s + j), scale);
    StoreU(Mul(p, Sub(LoadU(d, g + j), delta)), d, g + j);
    StoreU(dropout(p, j), d, s + j);
  }
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
