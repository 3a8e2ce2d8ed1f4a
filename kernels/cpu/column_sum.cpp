// The sum over rows, for the gradients of biases.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/column_sum.cpp"
#include "kernels/cpu/simd.h"

#include <string>

#include "kernels/cpu/parallel.h"
#include "kernels/gemm.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// y[j] (set or add) = sum of x[i * stride + j] over `rows` rows, for n columns. Rows are taken eight at a time: y
/// stays in the first-level cache, x is read once.
template <class T>
HWY_INLINE void add_rows(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t n, float* y, bool add) {
  const Floats d;
  if (!add) each_vector(d, n, [&](std::int64_t j, auto part) HWY_ATTR { store(d, Zero(d), y + j, part); });
  std::int64_t i = 0;
  for (; i + 8 <= rows; i += 8) {
    const T* r = x + i * stride;
    each_vector(d, n, [&](std::int64_t j, auto part) HWY_ATTR {
      const auto at = [&](int k) HWY_ATTR { return load(d, r + k * stride + j, part); };
      const FloatVec first = Add(Add(at(0), at(1)), Add(at(2), at(3)));
      const FloatVec second = Add(Add(at(4), at(5)), Add(at(6), at(7)));
      store(d, Add(load(d, y + j, part), Add(first, second)), y + j, part);
    });
  }
  for (; i < rows; ++i)
    each_vector(d, n, [&](std::int64_t j, auto part) HWY_ATTR {
      store(d, Add(load(d, y + j, part), load(d, x + i * stride + j, part)), y + j, part);
    });
}

void add_rows_f32(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n, float* y, bool add) {
  add_rows(x, stride, rows, n, y, add);
}
void add_rows_bf16(const Bf16* x, std::int64_t stride, std::int64_t rows, std::int64_t n, float* y, bool add) {
  add_rows(x, stride, rows, n, y, add);
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(add_rows_f32);
HWY_EXPORT(add_rows_bf16);

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const ColumnSum&) {
  return 0;
}

template <>
void run<Device::cpu>(Exec& exec, const ColumnSum& s) {
  const std::int64_t rows = s.x.rows(), cols = s.x.cols();
  if (!s.x.is_matrix() || s.y.to.numel() != cols || !s.y.to.is_contiguous())
    throw Error("column_sum: x " + s.x.shape.str() + " must be a matrix and y " + s.y.to.shape.str() +
                " hold its columns");
  // Every column is summed by one thread in the order of the rows: the bits do not depend on the number of threads.
  // Parts are whole cache lines of 16 columns.
  constexpr std::int64_t kLine = 16;
  const std::int64_t lines = (cols + kLine - 1) / kLine;
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(rows, 1));
  const auto sum = [&](const auto* x, const auto& kernel) {
    parallel_for(exec, lines, grain, [&](std::int64_t first, std::int64_t last) {
      const std::int64_t from = first * kLine, to = std::min(last * kLine, cols);
      kernel(x + from, s.x.row_stride(), rows, to - from, s.y.to.f32() + from, s.y.add);
    });
  };
  if (s.x.dtype == DType::bf16)
    sum(s.x.as<Bf16>(), HWY_DYNAMIC_DISPATCH(add_rows_bf16));
  else
    sum(s.x.f32(), HWY_DYNAMIC_DISPATCH(add_rows_f32));
}

}  // namespace cald
#endif  // HWY_ONCE
