// Helpers of the CUDA kernels' tests: tensors in device memory, wanted values with their tolerance.
#pragma once
#include <cuda_bf16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/base/rng.h"
#include "engine/base/tensor_ref.h"
#include "tests/emulation/support.h"

namespace cald {

template <>
struct DTypeOf<__nv_bfloat16> {
  static constexpr DType value = DType::bf16;
};

}  // namespace cald

namespace cald::test {

struct RoundedToBf16 {
  float operator()(float x) const { return __bfloat162float(__float2bfloat16(x)); }
};

inline std::vector<float> normal_values(std::int64_t n, std::uint64_t stream) {
  RandomStream random(17, stream);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& x : values) x = random.normal();
  return values;
}

/// A tensor in device memory whose rows have `gap` elements between them, which are NaN and must stay so.
template <class T>
class DeviceTensor {
 public:
  DeviceTensor(const Shape& shape, std::int64_t gap) : gap_(gap), buffer_(elements(shape, gap)) {
    ref_.shape = shape, ref_.strides = contiguous_strides(shape), ref_.present = true;
    ref_.dtype = DTypeOf<T>::value, ref_.data = buffer_.get();
    const std::int64_t width = shape[-1] + gap;
    for (int i = shape.rank() - 2, first = i; i >= 0; --i)
      ref_.strides[i] = i == first ? width : ref_.strides[i + 1] * shape[i + 1];
  }
  template <class From>
  DeviceTensor(const Shape& shape, const std::vector<From>& values, std::int64_t gap = 0) : DeviceTensor(shape, gap) {
    std::vector<T> all(elements(shape, gap));
    if (!all.empty()) std::memset(static_cast<void*>(all.data()), 0xff, all.size() * sizeof(T));
    const auto width = static_cast<std::size_t>(shape[-1]), step = width + static_cast<std::size_t>(gap);
    for (std::size_t i = 0; i < values.size(); ++i) all[i / width * step + i % width] = T(values[i]);
    check(cudaMemcpy(buffer_.get(), all.data(), all.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  const TensorRef& ref() const { return ref_; }
  operator TensorRef() const { return ref_; }

  /// The values without the gaps, as floats where T is bf16.
  auto read() const {
    const std::vector<T> all = buffer_.read();
    const auto width = static_cast<std::size_t>(ref_.shape[-1]), step = width + static_cast<std::size_t>(gap_);
    std::vector<std::conditional_t<std::is_same_v<T, __nv_bfloat16>, float, T>> values;
    for (std::size_t i = 0; i < static_cast<std::size_t>(ref_.numel()); ++i)
      values.push_back(all[i / width * step + i % width]);
    for (std::size_t i = 0; i < all.size(); ++i) {
      T fresh;
      std::memset(static_cast<void*>(&fresh), 0xff, sizeof fresh);
      if (i % step < width) continue;
      EXPECT_EQ(std::memcmp(&all[i], &fresh, sizeof fresh), 0) << "a gap was written";
    }
    return values;
  }

 private:
  static std::size_t elements(const Shape& shape, std::int64_t gap) {
    return static_cast<std::size_t>(shape[-1] ? shape.numel() / shape[-1] * (shape[-1] + gap) : 0);
  }
  TensorRef ref_;
  std::int64_t gap_;
  Buffer<T> buffer_;
};

template <class T>
void add_to(std::vector<T>& values, const std::vector<float>& more) {
  for (std::size_t i = 0; i < more.size(); ++i) values[i] += static_cast<T>(more[i]);
}

/// Twice the largest error of the naive code in the kernel's dtype, and at least two units in the last place of the
/// largest wanted value.
inline double tolerance_of(const std::vector<double>& wanted, const std::vector<float>& naive,
                           double epsilon = std::numeric_limits<float>::epsilon()) {
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!std::isfinite(wanted[i])) continue;
    error = std::max(error, std::abs(static_cast<double>(naive[i]) - wanted[i]));
    largest = std::max(largest, std::abs(wanted[i]));
  }
  return std::max(2 * error, 2 * largest * epsilon);
}

inline void expect_near(const std::vector<float>& got, const std::vector<double>& wanted, double tolerance,
                        const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto x = static_cast<double>(got[i]);
    const bool near = std::isfinite(wanted[i]) ? std::abs(x - wanted[i]) <= tolerance : x == wanted[i];
    ASSERT_TRUE(near) << what << ": element " << i << " is " << x << ", wanted " << wanted[i] << " within "
                      << tolerance;
  }
}

}  // namespace cald::test
