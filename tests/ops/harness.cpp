#include "tests/ops/harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "ops/losses.h"
#include "tests/ops/weighted_total.h"

namespace cald::test {
namespace {

struct Result {
  Shape shape;
  std::vector<float> y;
  std::vector<std::vector<float>> grads;
};

std::vector<float> download(Tape& tape, const Tensor& t) {
  Tensor dense = tape.context().empty(t.shape());
  tape.context().launch(Copy{t, dense});
  return read(dense);
}

Tensor upload_as(OpRun& run, const Shape& shape, const std::vector<float>& values, DType dtype) {
  const Tensor x = run.floats(shape, values);
  if (dtype == DType::f32) return x;
  Tensor y = run.tape.context().empty(shape, dtype);
  run.tape.context().launch(Copy{x, y});
  return y;
}

/// A view whose rows have NaNs around them and start one element off the alignment.
Tensor upload_strided(OpRun& run, const Shape& shape, const std::vector<float>& values, DType dtype) {
  const std::int64_t cols = shape[-1], pitch = cols + 3;
  Shape padded = shape;
  padded[-1] = pitch;
  std::vector<float> data(static_cast<std::size_t>(padded.numel()), std::numeric_limits<float>::quiet_NaN());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    data[static_cast<std::size_t>(at / cols * pitch + 1 + at % cols)] = values[i];
  }
  return upload_as(run, padded, data, dtype).narrow(-1, 1, 1 + cols);
}

struct Mode {
  int threads = 1;
  bool strided = false;
  bool twice = false;
};

Result run_once(const Case& c, const std::vector<std::vector<float>>& values, const Expectation& e, const OpFn& op,
                Mode mode) {
  Place place(mode.threads);
  Tape tape(place);
  OpRun run{tape};
  std::vector<Tensor> in;
  bool any = false;
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    const Input& spec = c.inputs[k];
    const bool strided = mode.strided && spec.strided && spec.shape.rank() >= 1;
    const Tensor x = strided ? upload_strided(run, spec.shape, values[k], spec.dtype)
                             : upload_as(run, spec.shape, values[k], spec.dtype);
    in.push_back(spec.differentiated ? tape.input(x) : x);
    any = any || spec.differentiated;
  }
  const Tensor y = op(run, in);
  EXPECT_EQ(name_of(y.dtype()), std::string(name_of(c.output))) << c.name;
  Result result{y.shape(), download(tape, y), {}};
  if (!any || result.shape.numel() == 0) return result;
  const Tensor r = run.floats(y.shape(), e.r);
  Tensor loss = tape.apply(WeightedTotal{r}, y);
  if (mode.twice) loss = tape.apply(WeightedSum{1, 1}, loss, tape.apply(WeightedTotal{r}, op(run, in)));
  tape.backward(loss);
  for (std::size_t k = 0; k < in.size(); ++k) {
    const Tensor g = tape.grad(in[k]);
    result.grads.push_back(g ? download(tape, g) : std::vector<float>{});
  }
  return result;
}

Wanted doubled(Wanted w) {
  for (double& v : w.values) v *= 2;
  w.tolerance *= 2;
  return w;
}

void compare(const Result& got, const Case& c, const Expectation& e, bool twice, const std::string& what) {
  ASSERT_EQ(got.shape, e.shape) << what;
  expect_near(got.y, e.y, what + ", value");
  if (got.grads.empty()) return;
  for (std::size_t k = 0; k < c.inputs.size(); ++k)
    if (c.inputs[k].differentiated)
      expect_near(got.grads[k], twice ? doubled(e.grads[k]) : e.grads[k],
                  what + ", gradient of input " + std::to_string(k));
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace

std::shared_ptr<Storage> PoisonedAllocator::allocate(std::size_t bytes, MemClass cls, const char* op) {
  auto s = HeapAllocator::allocate(bytes, cls, op);
  const std::vector<unsigned char> poison(bytes, 0xFF);
  functions_of(device()).write(s->data, poison.data(), bytes);
  return s;
}

Case in_bf16(Case c, const std::vector<std::size_t>& inputs, DType output, int roundings) {
  c.name += ", bf16";
  c.output = output;
  c.roundings = roundings;
  for (std::size_t k : inputs) c.inputs[k].dtype = DType::bf16;
  return c;
}

std::vector<float> rounded(std::vector<float> values, DType dtype) {
  if (dtype != DType::bf16) return values;
  for (float& v : values) {
    auto bits = std::bit_cast<std::uint32_t>(v);
    bits += 0x7FFFu + ((bits >> 16) & 1u);
    v = std::bit_cast<float>(bits & 0xFFFF0000u);
  }
  return values;
}

Wanted wanted(std::vector<double> exact, const std::vector<float>& naive) {
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error = std::max(error, std::abs(exact[i] - static_cast<double>(naive[i])));
    largest = std::max(largest, std::abs(exact[i]));
  }
  const auto top = static_cast<float>(largest);
  const double ulp = static_cast<double>(std::nextafter(top, std::numeric_limits<float>::infinity()) - top);
  return {std::move(exact), std::max(2 * error, 2 * ulp)};
}

void allow(Wanted& w, const std::vector<double>& exact, const std::vector<float>& naive) {
  for (std::size_t i = 0; i < exact.size(); ++i)
    w.tolerance = std::max(w.tolerance, 2 * std::abs(exact[i] - static_cast<double>(naive[i])));
}

void expect_near(const std::vector<float>& got, const Wanted& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.values.size()) << what;
  int failures = 0;
  for (std::size_t i = 0; i < got.size() && failures < 3; ++i) {
    if (std::abs(static_cast<double>(got[i]) - want.values[i]) <= want.tolerance) continue;
    ADD_FAILURE() << what << ", element " << i << ": got " << got[i] << ", wanted " << want.values[i] << " within "
                  << want.tolerance;
    ++failures;
  }
}

void expect_derivative(double got, double difference, double scale, const std::string& what) {
  EXPECT_NEAR(got, difference, 1e-7 * scale) << what;
}

std::vector<float> normal_values(std::int64_t n, std::uint64_t seed, std::uint64_t stream, float scale) {
  RandomStream random(seed, stream);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = scale * random.normal();
  return v;
}

std::vector<std::vector<float>> draw_inputs(const Case& c) {
  std::vector<std::vector<float>> values;
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    const Input& in = c.inputs[k];
    auto drawn = in.values.empty() ? normal_values(in.shape.numel(), c.seed, k, in.scale) : in.values;
    values.push_back(rounded(std::move(drawn), in.dtype));
  }
  return values;
}

void check_runs(const Case& c, const std::vector<std::vector<float>>& values, const Expectation& e, const OpFn& op) {
  for (int threads : backend().threads) {
    const std::string what = c.name + " on " + backend().name + ", " + std::to_string(threads) + " threads";
    const Result first = run_once(c, values, e, op, {.threads = threads});
    compare(first, c, e, false, what);
    const Result again = run_once(c, values, e, op, {.threads = threads});
    EXPECT_TRUE(same_bits(first.y, again.y)) << what << ": a second run gives other bits";
    for (std::size_t k = 0; k < first.grads.size(); ++k)
      EXPECT_TRUE(same_bits(first.grads[k], again.grads[k]))
          << what << ": a second run gives other bits in gradient " << k;
    compare(run_once(c, values, e, op, {.threads = threads, .strided = true}), c, e, false, what + ", strided");
    compare(run_once(c, values, e, op, {.threads = threads, .twice = true}), c, e, true, what + ", used twice");
  }
}

}  // namespace cald::test
