// AdamW against the same in double over many steps, decay and clipping, the gradients' norm, threads.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <set>

#include "engine/base/rng.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer.h"
#include "tests/ops/harness.h"

namespace cald::test {
namespace {

struct Spec {
  std::int64_t numel;
  float learning_rate, weight_decay;
};

/// Slots with values drawn by number.
struct Slots {
  Slots(Context& c, const std::vector<Spec>& specs) {
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const Spec& spec = specs[i];
      const Tensor t[4] = {c.empty({spec.numel}), c.empty({spec.numel}), c.empty({spec.numel}), c.empty({spec.numel})};
      fill(t[0], normal_values(spec.numel, 1, i));
      fill(t[2], std::vector<float>(static_cast<std::size_t>(spec.numel), 0.0f));
      fill(t[3], std::vector<float>(static_cast<std::size_t>(spec.numel), 0.0f));
      all.push_back({t[0], t[1], t[2], t[3], spec.learning_rate, spec.weight_decay});
      tensors.insert(tensors.end(), t, t + 4);
    }
  }
  static void fill(const Tensor& t, const std::vector<float>& values) { write_tensor(t, values.data()); }
  /// New gradients for every slot.
  void draw_gradients(std::uint64_t step, float scale) {
    for (std::size_t i = 0; i < all.size(); ++i)
      fill(tensors[4 * i + 1], normal_values(tensors[4 * i].numel(), step, 100 + i, scale));
  }
  std::vector<float> values(std::size_t slot, int which = 0) const {
    return read(tensors[4 * slot + static_cast<std::size_t>(which)]);
  }
  std::vector<AdamWSlot> all;
  std::vector<Tensor> tensors;
};

/// The definition, in T.
template <class T>
struct Reference {
  std::vector<T> value, m, v;
  void step(const Spec& s, const AdamW& a, int t, const std::vector<float>& grad, T scale) {
    const T b1(a.beta1), b2(a.beta2), rate(s.learning_rate);
    m.resize(value.size()), v.resize(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
      const T g = T(grad[i]) * scale;
      value[i] *= 1 - rate * T(s.weight_decay);
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      const T root = std::sqrt(v[i]) / std::sqrt(1 - std::pow(b2, T(t)));
      value[i] -= rate / (1 - std::pow(b1, T(t))) * m[i] / (root + T(a.eps));
    }
  }
};

void check_adamw(const std::vector<Spec>& specs, float max_norm, int steps) {
  Place place(2);
  Context& context = place;
  Slots slots(context, specs);
  std::vector<Reference<double>> exact(specs.size());
  std::vector<Reference<float>> naive(specs.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::vector<float> start = slots.values(i);
    naive[i].value = start;
    exact[i].value.assign(start.begin(), start.end());
  }
  const Tensor norm = context.empty({1});
  AdamW a{&slots.all, 0, 0.9, 0.999, 1e-8f, max_norm, norm};
  for (int t = 1; t <= steps; ++t) {
    slots.draw_gradients(static_cast<std::uint64_t>(t), t % 3 ? 0.01f : 1.0f);
    double squares = 0;
    for (std::size_t i = 0; i < specs.size(); ++i)
      for (float g : slots.values(i, 1)) squares += static_cast<double>(g) * static_cast<double>(g);
    const double scale =
        max_norm > 0 ? std::min(1.0, static_cast<double>(max_norm) / (std::sqrt(squares) + 1e-6)) : 1.0;
    context.launch(GradientNorm{&slots.all, norm});
    EXPECT_NEAR(read_one(norm), std::sqrt(squares), 1e-7 * std::sqrt(squares));
    a.step = t;
    context.launch(a);
    for (std::size_t i = 0; i < specs.size(); ++i) {
      exact[i].step(specs[i], a, t, slots.values(i, 1), scale);
      naive[i].step(specs[i], a, t, slots.values(i, 1), static_cast<float>(scale));
    }
  }
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::string what = "slot " + std::to_string(i);
    expect_near(slots.values(i, 0), wanted(exact[i].value, naive[i].value), what + ", value");
    expect_near(slots.values(i, 2), wanted(exact[i].m, naive[i].m), what + ", m");
    expect_near(slots.values(i, 3), wanted(exact[i].v, naive[i].v), what + ", v");
  }
}

TEST(AdamW, TwentyStepsWithDecay) { check_adamw({{1000, 1e-3f, 0.1f}, {37, 1e-2f, 0.0f}}, 0, 20); }
TEST(AdamW, TwentyStepsWithClipping) { check_adamw({{513, 1e-2f, 0.01f}, {5, 1e-3f, 0.1f}}, 1.0f, 20); }
TEST(AdamW, Sizes) { check_adamw({{0, 1e-3f, 0.1f}, {1, 1e-2f, 0.0f}, {8192, 1e-3f, 0}, {8193, 1e-3f, 0}}, 0, 2); }

TEST(AdamW, BelowTheNormNothingIsClipped) {
  Place place;
  Context& context = place;
  Slots clipped(context, {{50, 1e-3f, 0.1f}}), plain(context, {{50, 1e-3f, 0.1f}});
  clipped.draw_gradients(3, 0.01f);
  plain.draw_gradients(3, 0.01f);
  const Tensor norm = context.empty({1});
  context.launch(GradientNorm{&clipped.all, norm});
  context.launch(AdamW{&clipped.all, 1, 0.9, 0.999, 1e-8f, 10.0f, norm});
  context.launch(AdamW{&plain.all, 1, 0.9, 0.999, 1e-8f, 0.0f, {}});
  EXPECT_EQ(clipped.values(0), plain.values(0));
}

TEST(AdamW, TheNumberOfThreadsDoesNotMatter) {
  const std::vector<Spec> specs{{100000, 1e-3f, 0.1f}, {3, 1e-2f, 0}, {20001, 1e-3f, 0}};
  std::vector<std::vector<float>> first;
  for (int threads : backend().many_threads) {
    Place place(threads);
    Context& context = place;
    Slots slots(context, specs);
    slots.draw_gradients(1, 1.0f);
    const Tensor norm = context.empty({1});
    context.launch(GradientNorm{&slots.all, norm});
    context.launch(AdamW{&slots.all, 1, 0.9, 0.999, 1e-8f, 1.0f, norm});
    std::vector<std::vector<float>> got{read(norm)};
    for (std::size_t i = 0; i < specs.size(); ++i)
      for (int which : {0, 2, 3}) got.push_back(slots.values(i, which));
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << threads << " threads";
  }
}

/// Copies for products are renewed with the value, to the bit what a fresh copy is.
TEST(AdamW, RenewsCopiesOfWeights) {
  for (const Shape& shape :
       {Shape{64, 64}, Shape{70, 100}, Shape{129, 65}, Shape{5, 9}, Shape{16, 200}, Shape{200, 320}})
    for (const int threads : backend().threads) {
      Place place(threads);
      HeapAllocator memory(backend().device);
      Context& c = place;
      Slots slots(c, {{shape.numel(), 1e-2f, 0.1f}, {7, 1e-2f, 0.0f}}), plain(c, {{shape.numel(), 1e-2f, 0.1f}});
      AdamWSlot& s = slots.all[0];
      for (TensorRef* t : {&s.value, &s.grad, &s.m, &s.v}) t->shape = shape, t->strides = contiguous_strides(shape);
      const auto like_a_copy = [&](Packing p) { return weight_copy(shape, p, memory, MemClass::weights, "copy"); };
      const Tensor copies[] = {like_a_copy(Packing::forward), like_a_copy(Packing::backward)};
      s.forward = copies[0], s.backward = copies[1];
      for (int t = 1; t <= 2; ++t) {
        slots.draw_gradients(static_cast<std::uint64_t>(t), 1.0f);
        plain.draw_gradients(static_cast<std::uint64_t>(t), 1.0f);
        c.launch(AdamW{&slots.all, t, 0.9, 0.999, 1e-8f, 0.0f, {}});
        c.launch(AdamW{&plain.all, t, 0.9, 0.999, 1e-8f, 0.0f, {}});
      }
      for (const int which : {0, 2, 3}) EXPECT_EQ(slots.values(0, which), plain.values(0, which)) << shape.str();
      const auto bytes_of = [](const Tensor& x) {
        std::vector<std::byte> bytes(x.bytes());
        functions_of(x.device()).read(bytes.data(), x.data<void>(), bytes.size());
        return bytes;
      };
      for (const Tensor& copy : copies) {
        if (!copy) continue;
        const Tensor fresh = like_a_copy(&copy == copies ? Packing::forward : Packing::backward);
        c.launch(Copy{s.value, fresh.ref()});
        EXPECT_TRUE(bytes_of(copy) == bytes_of(fresh)) << shape.str() << ", " << threads << " threads";
      }
    }
}

/// With moments in bf16: as many steps over gradients of one size, then what the moments are.
struct Bf16Moments {
  std::vector<float> value, m, v;
  bool operator==(const Bf16Moments&) const = default;
};

Bf16Moments run_bf16_moments(std::int64_t n, int steps, float later_gradient, int threads, std::uint32_t noise = 5) {
  Place place(threads);
  Context& context = place;
  Slots slots(context, {{n, 1e-3f, 0.0f}});
  const Tensor m = context.empty({n}, DType::bf16), v = context.empty({n}, DType::bf16), copy = context.empty({n});
  const std::vector<std::uint16_t> zeros(static_cast<std::size_t>(n), 0);
  write_tensor(m, zeros.data()), write_tensor(v, zeros.data());
  slots.all[0].m = m, slots.all[0].v = v, slots.all[0].noise = noise;
  for (int t = 1; t <= steps; ++t) {
    Slots::fill(slots.tensors[1], std::vector<float>(static_cast<std::size_t>(n), t == 1 ? 0.5f : later_gradient));
    context.launch(AdamW{&slots.all, t, 0.9, 0.999, 1e-8f, 0.0f, {}});
  }
  const auto floats = [&](const Tensor& x) {
    context.launch(Copy{x, copy});
    return read(copy);
  };
  return {slots.values(0), floats(m), floats(v)};
}

double mean(const std::vector<float>& x) {
  double sum = 0;
  for (const float f : x) sum += static_cast<double>(f);
  return sum / static_cast<double>(x.size());
}

/// Rounded to the nearest, a v of 8 bits would stay what its first step made it, since a step takes off a thousandth.
TEST(AdamWInBf16Moments, AreUnbiased) {
  const int steps = 300;
  const Bf16Moments got = run_bf16_moments(20000, steps, 0.02f, 1);
  double m = 0, v = 0;
  for (int t = 1; t <= steps; ++t) {
    const double g = t == 1 ? 0.5 : static_cast<double>(0.02f);
    m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
  }
  // A number's neighbours in bf16 are 2^-7 of it apart at most, so a rounding's deviation is half of that. m has those
  // of some ten steps in it, v those of all 300; the mean over 20,000 elements has a 141st. Four deviations.
  EXPECT_NEAR(mean(got.m), m, 4 * m * std::sqrt(10.0) / 256 / 141);
  EXPECT_NEAR(mean(got.v), v, 4 * v * std::sqrt(300.0) / 256 / 141);
}

TEST(AdamWInBf16Moments, RoundsWhatIsKeptAlone) {
  const std::int64_t n = 1000;
  const Bf16Moments got = run_bf16_moments(n, 1, 0, 1);
  Place place;
  Context& context = place;
  Slots slots(context, {{n, 1e-3f, 0.0f}});
  Slots::fill(slots.tensors[1], std::vector<float>(static_cast<std::size_t>(n), 0.5f));
  context.launch(AdamW{&slots.all, 1, 0.9, 0.999, 1e-8f, 0.0f, {}});
  EXPECT_EQ(got.value, slots.values(0)) << "the first update does not depend on kept moments";
  const std::vector<float> m = slots.values(0, 2), v = slots.values(0, 3);
  std::set<float> kinds;
  AdamWSlot slot{};
  slot.noise = 5;
  const std::uint32_t key = slot.noise_key(1);
  const auto cut = [](float x, std::uint32_t noise) {
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + (noise & 0xFFFFu)) & 0xFFFF0000u);
  };
  for (std::size_t i = 0; i < m.size(); ++i) {
    const std::uint32_t noise = rounding_noise(key, static_cast<std::uint32_t>(i));
    ASSERT_EQ(got.m[i], cut(m[i], noise)) << "the same noise on every backend";
    ASSERT_EQ(got.v[i], cut(v[i], noise >> 16)) << "the same noise on every backend";
    kinds.insert(got.m[i]), kinds.insert(got.v[i]);
    ASSERT_NEAR(got.m[i], m[i], m[i] / 128) << "a neighbour in bf16";
    ASSERT_NEAR(got.v[i], v[i], v[i] / 128) << "a neighbour in bf16";
  }
  EXPECT_EQ(kinds.size(), 4u) << "both neighbours of both numbers";
}

TEST(AdamWInBf16Moments, DependOnTheElementAlone) {
  const Bf16Moments one = run_bf16_moments(30001, 3, 0.1f, 1);
  for (int threads : backend().many_threads) EXPECT_EQ(run_bf16_moments(30001, 3, 0.1f, threads), one) << threads;
  EXPECT_NE(run_bf16_moments(30001, 3, 0.1f, 1, 6), one) << "another parameter";
  const Bf16Moments none = run_bf16_moments(100, 3, 0.0f, 1);
  const Bf16Moments fewer = run_bf16_moments(99, 3, 0.0f, 1);
  EXPECT_TRUE(std::equal(fewer.m.begin(), fewer.m.end(), none.m.begin()));
}

TEST(GradientNorm, SmallValuesBesideLargeOnesCount) {
  Place place;
  Context& context = place;
  Slots slots(context, {{200001, 0, 0}});
  std::vector<float> g(200001, 1e-4f);
  g[0] = 1.0f;
  Slots::fill(slots.tensors[1], g);
  const Tensor norm = context.empty({1});
  context.launch(GradientNorm{&slots.all, norm});
  EXPECT_NEAR(read_one(norm), std::sqrt(1.0 + 2e-3), 1e-7);
  const std::vector<AdamWSlot> none;
  context.launch(GradientNorm{&none, norm});
  EXPECT_EQ(read_one(norm), 0.0f);
}

/// Tensors that begin `offset` elements after an aligned address.
void expect_bits_at(std::int64_t offset, DType moments) {
  SCOPED_TRACE(std::to_string(offset) + " elements on, " + name_of(moments));
  constexpr std::int64_t kSize = 4096 + 4 * 256 + 7;  // a chunk, and one with a piece of a vector at its end
  Place place;
  Context& context = place;
  std::vector<std::vector<float>> bits[2];
  for (const std::int64_t from : {std::int64_t{0}, offset}) {
    std::vector<Tensor> t;
    for (std::uint64_t k = 0; k < 4; ++k) {
      const std::vector<float> values = normal_values(kSize, 5, k);
      Tensor whole = context.empty({kSize + offset}, k < 2 ? DType::f32 : moments);
      context.launch(Fill{whole, 3.0f});
      const Tensor part = whole.narrow(0, from, from + kSize), exact = tensor_of(context, {kSize}, values);
      context.launch(Copy{exact, part});
      if (k == 3) context.launch(Fill{part, 0.25f});
      t.insert(t.end(), {whole, part});
    }
    const std::vector<AdamWSlot> slots{{t[1], t[3], t[5], t[7], 1e-2f, 0.1f}};
    const Tensor norm = context.empty({1});
    context.launch(GradientNorm{&slots, norm});
    context.launch(AdamW{&slots, 2, 0.9, 0.999, 1e-8f, 1.0f, norm});
    auto& all = bits[from != 0];
    all.push_back(read(norm));
    for (std::size_t k = 0; k < 4; ++k) {
      const Tensor wide = context.empty({kSize + offset});
      context.launch(Copy{t[2 * k], wide});
      std::vector<float> values = read(wide);
      const auto first = values.begin() + from;
      all.emplace_back(first, first + kSize);
      values.erase(first, first + kSize);
      EXPECT_EQ(values, std::vector<float>(static_cast<std::size_t>(offset), 3.0f)) << "beside tensor " << k;
    }
  }
  EXPECT_TRUE(bits[0] == bits[1]);
}

TEST(AdamW, AtAnyAddress) {
  for (const DType moments : {DType::f32, DType::bf16})
    for (const std::int64_t offset : {1, 2, 4}) expect_bits_at(offset, moments);
}

/// A table with its gradient whole, and the same by rows in all steps but the third.
void expect_the_same_by_rows(std::int64_t rows, std::int64_t cols, float weight_decay, int threads) {
  SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", decay " + std::to_string(weight_decay));
  Place place(threads);
  Context& context = place;
  Slots whole(context, {{rows * cols, 0.01f, weight_decay}}), by_rows(context, {{rows * cols, 0.01f, weight_decay}});
  const auto n = static_cast<std::size_t>(rows), width = static_cast<std::size_t>(cols);
  const Tensor row_of = context.empty({rows}, DType::i32), moved = context.empty({rows}, DType::i32);
  std::vector<std::int32_t> none(n, 0);
  write_tensor(moved, none.data());
  AdamWSlot& slot = by_rows.all[0];
  slot.value.shape = {rows, cols};
  slot.value.strides = {cols, 1};
  slot.rows = row_of;
  slot.moved = moved;
  RandomStream random(3, 3);
  for (int step = 1; step <= 6; ++step) {
    std::vector<std::int32_t> at(n, -1);
    std::vector<float> dense(n * width, 0.0f), few;
    for (std::size_t r = 0; r < n; ++r) {
      if (random.below(5) != 0) continue;
      at[r] = static_cast<std::int32_t>(few.size() / width);
      for (std::size_t j = 0; j < width; ++j) few.push_back(dense[r * width + j] = random.normal());
    }
    Slots::fill(whole.tensors[1], dense);
    write_tensor(row_of, at.data());
    const Tensor grad = context.empty({static_cast<std::int64_t>(few.size() / width), cols});
    write_tensor(grad, few.data());
    const bool is_whole = step == 3;
    slot.rows = is_whole ? TensorRef{} : row_of.ref();
    slot.grad = is_whole ? whole.all[0].grad : grad.ref();
    context.launch(AdamW{&whole.all, step, 0.9, 0.999, 1e-8f, 0.0f, {}});
    context.launch(AdamW{&by_rows.all, step, 0.9, 0.999, 1e-8f, 0.0f, {}});
    for (const int which : {0, 2, 3})
      ASSERT_TRUE(whole.values(0, which) == by_rows.values(0, which)) << "tensor " << which << ", step " << step;
  }
}

TEST(AdamW, AGradientByRowsUpdatesAlikeToTheBit) {
  for (int threads : backend().threads)
    for (const float decay : {0.0f, 0.1f}) {
      expect_the_same_by_rows(1, 1, decay, threads);
      expect_the_same_by_rows(50, 7, decay, threads);
      expect_the_same_by_rows(37, 513, decay, threads);
      expect_the_same_by_rows(37, 516, decay, threads);
      expect_the_same_by_rows(3, 9001, decay, threads);
    }
}

}  // namespace
}  // namespace cald::test
