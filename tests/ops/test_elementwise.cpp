// Sums, dropout, copies of any strides and types, fills, and the test for non-finite values.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/elementwise.h"
#include "ops/losses.h"
#include "tests/ops/harness.h"
#include "tests/ops/reference.h"

namespace cald::test {
namespace {

const std::vector<Shape> kShapes{{0, 3}, {1}, {7}, {3, 5}, {2, 3, 17}, {2, 1, 3, 9}, {5, 4099}};

TEST(Sum, ValuesAndGradients) {
  for (const Shape& s : kShapes) {
    if (s.numel() > 1000) continue;
    check_op(
        {"sum " + s.str(), {{s}, {s}}}, []<class T>(const Inputs<T>& in) { return sum(in[0], in[1]); },
        [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Sum{}, in[0], in[1]); });
  }
}

TEST(Sum, OfATensorWithItself) {
  check_op(
      {"x + x", {{{3, 5}}}}, []<class T>(const Inputs<T>& in) { return sum(in[0], in[0]); },
      [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Sum{}, in[0], in[0]); });
}

TEST(WeightedSum, ValuesAndGradients) {
  check_op(
      {"weighted sum", {{{1}}, {{1}}}},
      []<class T>(const Inputs<T>& in) {
        Array<T> y({1});
        y.data[0] = T(static_cast<double>(0.3f)) * in[0].data[0] + T(static_cast<double>(-1.7f)) * in[1].data[0];
        return y;
      },
      [](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(WeightedSum{0.3f, -1.7f}, in[0], in[1]);
      });
}

TEST(DropoutOp, KeepsWhatItsKeySays) {
  const Dropout d{0.3f, {0x123456789abcdefull, 7, 3}};
  const std::vector<std::int32_t> samples{5, 1000000};
  for (const Shape& s : {Shape{2, 3}, Shape{2, 5, 1}, Shape{2, 4, 37}, Shape{2, 1, 261}})
    check_op(
        {"dropout " + s.str(), {{s}}}, [&]<class T>(const Inputs<T>& in) { return dropped(in[0], d, samples); },
        [&](OpRun& run, const std::vector<Tensor>& in) {
          return run.tape.apply(DropoutOp{d}, in[0], run.ints({2}, samples));
        });
}

TEST(DropoutOp, WithoutRateCopies) {
  check_op(
      {"dropout off", {{{2, 3, 5}}}}, []<class T>(const Inputs<T>& in) { return in[0]; },
      [&](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(DropoutOp{{}}, in[0], run.ints({2}, {0, 1}));
      });
}

TEST(DropoutOp, RateIsMet) {
  Place place(2);
  Context& context = place;
  const Tensor x = context.empty({4, 64, 256});
  const Tensor samples = tensor_of(context, {4}, std::vector<std::int32_t>{0, 1, 2, 3});
  for (float p : {0.1f, 0.5f}) {
    context.launch(Fill{x, 1.0f});
    context.launch(DropoutApply{x, samples, {x, false}, {p, {1, 2, 3}}});
    std::int64_t kept = 0;
    for (float v : read(x)) kept += v != 0.0f;
    const double n = static_cast<double>(x.numel()), deviation = std::sqrt(n * p * (1 - p));
    EXPECT_NEAR(static_cast<double>(kept), n * (1 - p), 4 * deviation);
  }
}

TEST(DropoutOp, DropsNonFiniteValuesToo) {
  Place place;
  Context& context = place;
  const Tensor x = context.empty({1, 512}), samples = tensor_of(context, {1}, std::vector<std::int32_t>{0});
  context.launch(Fill{x, std::numeric_limits<float>::infinity()});
  context.launch(DropoutApply{x, samples, {x, false}, {0.5f, {1, 2, 3}}});
  for (float v : read(x)) EXPECT_FALSE(std::isnan(v));
}

TEST(Contiguous, CopiesAnyStrides) {
  for (const Shape& s : kShapes) {
    if (s.numel() > 1000) continue;
    check_op(
        {"contiguous " + s.str(), {{s}}}, []<class T>(const Inputs<T>& in) { return in[0]; },
        [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Contiguous{}, in[0]); });
  }
}

/// A (d0, d1, d2, d3) view with its dimensions in the order `order` in memory.
TensorRef permuted(const TensorRef& x, const std::array<int, 4>& order) {
  TensorRef t = x;
  for (int i = 0; i < 4; ++i) {
    t.shape[i] = x.shape[order[static_cast<std::size_t>(i)]];
    t.strides[i] = x.strides[order[static_cast<std::size_t>(i)]];
  }
  return t;
}

template <class T>
void check_permuted_copy(DType dtype) {
  for (int threads : backend().threads)
    for (const std::array<int, 4>& order : {std::array{0, 1, 2, 3}, std::array{0, 2, 1, 3}, std::array{3, 2, 1, 0}}) {
      Place place(threads);
      Context& context = place;
      const Shape shape{3, 5, 67, 23};
      std::vector<T> values(static_cast<std::size_t>(shape.numel()));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(i % 251);
      const Tensor x = tensor_of(context, shape, values, dtype);
      const TensorRef view = permuted(x, order);
      const Tensor y = context.empty(view.shape, dtype);
      context.launch(Copy{view, y});
      const std::vector<T> got = read<T>(y);
      std::size_t i = 0;
      for (std::int64_t a = 0; a < view.dim(0); ++a)
        for (std::int64_t b = 0; b < view.dim(1); ++b)
          for (std::int64_t c = 0; c < view.dim(2); ++c)
            for (std::int64_t d = 0; d < view.dim(3); ++d) {
              const std::int64_t from =
                  a * view.strides[0] + b * view.strides[1] + c * view.strides[2] + d * view.strides[3];
              ASSERT_EQ(got[i++], values[static_cast<std::size_t>(from)]);
            }
      const Tensor back = context.empty(x.shape(), dtype);
      context.launch(Copy{y, permuted(back, order)});
      EXPECT_TRUE(read<T>(back) == values);
    }
}

TEST(Copy, Permuted) {
  check_permuted_copy<float>(DType::f32);
  check_permuted_copy<std::int32_t>(DType::i32);
  check_permuted_copy<std::int64_t>(DType::i64);
  check_permuted_copy<std::uint8_t>(DType::boolean);
}

/// A (kRows, cols) part of a larger tensor: its rows `pitch` apart, the first `first` elements on.
struct Part {
  static constexpr std::int64_t kRows = 5, kSize = kRows * 67;  ///< elements of the larger one
  std::int64_t pitch, first;

  TensorRef of(TensorRef whole, std::int64_t cols) const {
    whole.data = static_cast<std::byte*>(whole.data) + static_cast<std::size_t>(first) * size_of(whole.dtype);
    whole.shape = {kRows, cols};
    whole.strides = {pitch, 1};
    return whole;
  }
  std::size_t at(std::int64_t row, std::int64_t column) const {
    return static_cast<std::size_t>(row * pitch + first + column);
  }
};
/// Rows that all begin at vectors of 16, and rows that do not.
constexpr Part kParts[] = {{64, 0}, {64, 16}, {64, 1}, {67, 0}};

/// fn(in, out, columns) of parts that lie differently.
template <class Fn>
void each_pair_of_parts(const Fn& fn) {
  for (const Part& in : kParts)
    for (const Part& out : kParts)
      for (const std::int64_t cols : {1, 3, 32, 45}) {
        SCOPED_TRACE(std::to_string(cols) + " columns " + std::to_string(in.pitch) + " apart from " +
                     std::to_string(in.first) + ", to " + std::to_string(out.pitch) + " from " +
                     std::to_string(out.first));
        fn(in, out, cols);
      }
}

/// What a vector would reach beyond the part must neither be read nor written.
void check_copy_of_parts(DType from, DType to) {
  SCOPED_TRACE(std::string(name_of(from)) + " to " + name_of(to));
  Place place;
  Context& context = place;
  std::vector<float> values(Part::kSize);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 100);
  const Tensor numbers = tensor_of(context, {Part::kSize}, values), result = context.empty({Part::kSize});
  const Tensor x = context.empty({Part::kSize}, from), y = context.empty({Part::kSize}, to);
  context.launch(Copy{numbers, x});
  each_pair_of_parts([&](const Part& in, const Part& out, std::int64_t cols) {
    context.launch(Fill{y, -1.0f});
    context.launch(Copy{in.of(x, cols), out.of(y, cols)});
    context.launch(Copy{y, result});
    std::vector<float> want(Part::kSize, -1.0f);
    for (std::int64_t r = 0; r < Part::kRows; ++r)
      for (std::int64_t j = 0; j < cols; ++j) want[out.at(r, j)] = values[in.at(r, j)];
    ASSERT_EQ(read(result), want);
  });
}

TEST(Copy, PartsAtAnyAddress) {
  for (const DType from : {DType::f32, DType::bf16})
    for (const DType to : {DType::f32, DType::bf16}) check_copy_of_parts(from, to);
}

TEST(DropoutOp, PartsAtAnyAddress) {
  Place place;
  Context& context = place;
  const Dropout d{0.4f, {1, 2, 3}};
  const std::vector<float> values = normal_values(Part::kSize, 1, 1);
  const Tensor x = tensor_of(context, {Part::kSize}, values), y = context.empty({Part::kSize});
  const Tensor samples = tensor_of(context, {Part::kRows}, std::vector<std::int32_t>{4, 3, 2, 1, 0});
  each_pair_of_parts([&](const Part& in, const Part& out, std::int64_t cols) {
    const Tensor exact = context.empty({Part::kRows, cols}), dropped = context.empty({Part::kRows, cols});
    context.launch(Copy{in.of(x, cols), exact});
    context.launch(DropoutApply{exact, samples, {dropped, false}, d});
    const std::vector<float> alone = read(dropped);
    for (const bool add : {false, true}) {
      context.launch(Fill{y, -1.0f});
      context.launch(DropoutApply{in.of(x, cols), samples, {out.of(y, cols), add}, d});
      std::vector<float> want(Part::kSize, -1.0f);
      for (std::int64_t r = 0; r < Part::kRows; ++r)
        for (std::int64_t j = 0; j < cols; ++j)
          want[out.at(r, j)] = (add ? -1.0f : 0.0f) + alone[static_cast<std::size_t>(r * cols + j)];
      ASSERT_EQ(read(y), want);
    }
  });
}

TEST(Copy, RoundsToNearestEvenBf16AndBack) {
  Place place;
  Context& context = place;
  const struct {
    std::uint32_t f32;
    std::uint16_t bf16;
  } cases[] = {{0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F818000, 0x3F82}, {0x3F808001, 0x3F81},
               {0x3F807FFF, 0x3F80}, {0x7F7FFFFF, 0x7F80}, {0xFF800000, 0xFF80}, {0x7F800001, 0x7FC0},
               {0x80000000, 0x8000}, {0xBF80FFFF, 0xBF81}, {0x00000001, 0x0000}};
  constexpr std::int64_t n = std::size(cases);
  std::vector<std::uint32_t> bits;
  for (const auto& each : cases) bits.push_back(each.f32);
  const Tensor x = tensor_of(context, {n}, bits, DType::f32);
  const Tensor half = context.empty({n}, DType::bf16), wide = context.empty({n});
  context.launch(Copy{x, half});
  context.launch(Copy{half, wide});
  const auto narrow = read<std::uint16_t>(half);
  const auto widened = read<std::uint32_t>(wide);
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    EXPECT_EQ(widened[i], static_cast<std::uint32_t>(narrow[i]) << 16) << i;
    if (std::isnan(std::bit_cast<float>(cases[i].f32)))
      EXPECT_TRUE(std::isnan(std::bit_cast<float>(widened[i]))) << i;  // which of the NaNs is the backend's choice
    else
      EXPECT_EQ(narrow[i], cases[i].bf16) << i;
  }
  const Tensor ints = context.empty({n}, DType::i32);
  EXPECT_THROW(context.launch(Copy{x, ints}), Error);
}

TEST(Fill, EveryTypeAndOnlyItsPart) {
  Place place(2);
  Context& context = place;
  const auto bytes_of = [&](DType t, float value) {
    const Shape shape{40, 700};
    const std::vector<std::byte> before(static_cast<std::size_t>(shape.numel()) * size_of(t), std::byte{0x55});
    const Tensor whole = tensor_of(context, shape, before, t);
    context.launch(Fill{whole.narrow(1, 1, 699), value});
    std::vector<std::byte> after(before.size());
    read_tensor(whole, after.data());
    const std::byte* const p = after.data();
    const std::size_t n = size_of(t);
    for (std::size_t row = 0; row < 40; ++row) {
      EXPECT_EQ(p[(row * 700) * n], std::byte{0x55});
      EXPECT_EQ(p[(row * 700 + 699) * n], std::byte{0x55});
      for (std::size_t j = 2; j < 699; ++j) EXPECT_EQ(std::memcmp(p + n, p + (row * 700 + j) * n, n), 0);
    }
    std::uint64_t bits = 0;
    std::memcpy(&bits, p + n, n);
    return bits;
  };
  EXPECT_EQ(bytes_of(DType::f32, 1.5f), std::bit_cast<std::uint32_t>(1.5f));
  EXPECT_EQ(bytes_of(DType::f32, -0.0f), 0x80000000u);
  EXPECT_EQ(bytes_of(DType::bf16, 1.5f), 0x3FC0u);
  EXPECT_EQ(bytes_of(DType::i32, -3.0f), 0xFFFFFFFDu);
  EXPECT_EQ(bytes_of(DType::i64, 7.0f), 7u);
  EXPECT_EQ(bytes_of(DType::boolean, 2.0f), 1u);
  EXPECT_EQ(bytes_of(DType::f32, 0.0f), 0u);
}

TEST(Add, InPlaceAndWithoutReadingB) {
  Place place(2);
  Context& context = place;
  const Tensor a = context.empty({30, 1001}), b = context.empty({30, 1001}), poison = context.empty({30, 1001});
  context.launch(Fill{a, 2.0f});
  context.launch(Fill{b, 3.0f});
  context.launch(Add{a, b, a});
  EXPECT_EQ(read(a).back(), 5.0f);
  context.launch(Add{a, b, b, 2.0f, -1.0f});
  EXPECT_EQ(read(b).back(), 7.0f);
  context.launch(Add{a, poison, poison, 0.5f, 0.0f});
  EXPECT_EQ(read(poison).back(), 2.5f);
  EXPECT_THROW(context.launch(Add{a, a.narrow(0, 0, 3), b}), Error);
}

TEST(FindNonFinite, FindsEachKindAnywhere) {
  for (int threads : backend().threads) {
    Place place(threads);
    Context& context = place;
    const Tensor x = context.empty({20011}), flag = context.empty({1}, DType::i32);
    const auto found = [&] {
      context.launch(Fill{flag, 0.0f});
      context.launch(FindNonFinite{x, flag});
      return read<std::int32_t>(flag)[0];
    };
    context.launch(Fill{x, std::numeric_limits<float>::max()});
    EXPECT_EQ(found(), 0);
    for (std::int64_t i : {0, 7, 9999, 20010})
      for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()}) {
        const Tensor at = x.narrow(0, i, i + 1);
        context.launch(Fill{at, bad});
        EXPECT_EQ(found(), 1) << i << " " << bad;
        context.launch(Fill{at, -1.0f});
      }
    context.launch(Fill{flag, 1.0f});
    context.launch(FindNonFinite{x, flag});
    EXPECT_EQ(read<std::int32_t>(flag)[0], 1) << "a flag once set stays";
  }
}

}  // namespace
}  // namespace cald::test
