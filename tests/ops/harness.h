// One call tests one op: values, gradients, threads, strides, accumulation.
//
// A test writes the op's forward once, as a template over the number type:
//
//   check_op({"sum", {{{3, 5}}, {{3, 5}}}},
//            []<class T>(const Inputs<T>& in) {
//              Array<T> y(in[0].shape);
//              for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = in[0].data[i] + in[1].data[i];
//              return y;
//            },
//            [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Sum{}, in[0], in[1]); });
//
// From it follow the wanted values (in double), the wanted gradients of sum(r y) with random r (Dual<double>, itself
// checked by central differences), and the tolerances: twice the largest error of the same code in float over a few
// draws (of the inputs for values; for gradients of r, or of the inputs if y is a scalar), at least two units in the
// last place of the largest wanted value. With inputs or output in bf16 the float code rounds what it was given and
// what it found, and no more.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/autograd.h"
#include "engine/host_access.h"
#include "engine/open_device.h"
#include "tests/ops/dual.h"

namespace cald::test {

/// Where ops under test run. Each program of tests has one: cpu_backend.cpp here, or tests/cuda/ops_backend.cpp.
struct Backend {
  const char* name;
  Device device;
  std::vector<int> threads;       ///< the counts to test with ...
  std::vector<int> many_threads;  ///< ... where the count must not change a bit
  bool has_bf16_products;
};
const Backend& backend();

/// Memory that begins as NaNs, so that a kernel that reads what nobody wrote is found out.
class PoisonedAllocator : public HeapAllocator {
 public:
  using HeapAllocator::HeapAllocator;
  std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) override;
};

/// A context on the backend with memory of its own.
class Place {
 public:
  explicit Place(int threads = 1)
      : device_(Exec{backend().device, threads}), memory_(backend().device), context_(device_.exec(), memory_) {}
  Context& context() { return context_; }
  operator Context&() { return context_; }
  const HeapAllocator& memory() const { return memory_; }

 private:
  OpenDevice device_;
  PoisonedAllocator memory_;
  Context context_;
};

/// The elements of a contiguous tensor.
template <class T = float>
std::vector<T> read(const Tensor& t) {
  std::vector<T> values(static_cast<std::size_t>(t.numel()));
  read_tensor(t, values.data());
  return values;
}
inline float read_one(const Tensor& t) { return read(t).at(0); }

/// A tensor with these values (which need not be T's numbers, if the dtype has their size).
template <class T>
Tensor tensor_of(Context& c, const Shape& shape, const std::vector<T>& values, DType dtype = DTypeOf<T>::value) {
  Tensor t = c.empty(shape, dtype);
  write_tensor(t, values.data());
  return t;
}

struct Input {
  Shape shape;
  bool differentiated = true;
  bool strided = true;          ///< the op accepts rows with a stride and any alignment of an element
  float scale = 1.0f;           ///< normal values with this standard deviation ...
  std::vector<float> values{};  ///< ... unless they are given
  DType dtype = DType::f32;     ///< f32 or bf16
};

struct Case {
  std::string name;
  std::vector<Input> inputs;
  std::uint64_t seed = 1;
  DType output = DType::f32;
  /// How often the naive program in bf16 rounds on the way to a result: between its products, and the result itself.
  /// Each is an error like the last one, which is the only one that the reference in float shows.
  int roundings = 1;
};
/// The case with these inputs in bf16, and the output too unless told otherwise.
Case in_bf16(Case c, const std::vector<std::size_t>& inputs, DType output = DType::bf16, int roundings = 1);

/// One run of the op: its tape, and constants for it on the backend's device.
struct OpRun {
  Tape& tape;
  Tensor floats(const Shape& shape, const std::vector<float>& values) {
    return tensor_of(tape.context(), shape, values);
  }
  Tensor ints(const Shape& shape, const std::vector<std::int32_t>& values) {
    return tensor_of(tape.context(), shape, values);
  }
};

template <class T>
using Inputs = std::vector<Array<T>>;
using OpFn = std::function<Tensor(OpRun&, const std::vector<Tensor>&)>;

/// Wanted numbers with the largest error allowed to each.
struct Wanted {
  std::vector<double> values;
  double tolerance = 0;
};
/// Rounded to nearest even where the dtype is bf16.
std::vector<float> rounded(std::vector<float> values, DType dtype);
/// values, and what `naive` (the same in float) allows.
Wanted wanted(std::vector<double> exact, const std::vector<float>& naive);
/// Allows what another draw's naive error allows: one small draw may happen to be exact.
void allow(Wanted& w, const std::vector<double>& exact, const std::vector<float>& naive);
inline constexpr std::uint64_t kDraws = 4;
/// Fails the test where got departs from wanted.
void expect_near(const std::vector<float>& got, const Wanted& want, const std::string& what);

/// n normal values of the given stream.
std::vector<float> normal_values(std::int64_t n, std::uint64_t seed, std::uint64_t stream, float scale = 1.0f);
/// The inputs' values as `check_op` draws them.
std::vector<std::vector<float>> draw_inputs(const Case& c);

struct Expectation {
  Shape shape;
  Wanted y;
  std::vector<Wanted> grads;  ///< by input; empty where not differentiated
  std::vector<float> r;
};
/// Runs the op with each number of threads, twice; with strided inputs; and with its inputs used twice.
void check_runs(const Case& c, const std::vector<std::vector<float>>& values, const Expectation& e, const OpFn& op);
void expect_derivative(double got, double difference, double scale, const std::string& what);

template <class T>
Inputs<T> as_inputs(const Case& c, const std::vector<std::vector<float>>& values) {
  Inputs<T> in;
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    Array<T> a(c.inputs[k].shape);
    for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] = T(values[k][i]);
    in.push_back(std::move(a));
  }
  return in;
}

/// d sum(r y) / d input k, element by element, for each r.
template <class T, class Reference>
std::vector<std::vector<T>> reference_gradients(const Reference& reference, Inputs<Dual<T>> in, std::size_t k,
                                                const std::vector<std::vector<float>>& rs) {
  std::vector<std::vector<T>> g(rs.size());
  for (auto& x : in[k].data) {
    x.d = T(1);
    const Array<Dual<T>> y = reference(in);
    for (std::size_t j = 0; j < rs.size(); ++j) {
      T sum(0);
      for (std::size_t i = 0; i < y.data.size(); ++i) sum += T(rs[j][i]) * y.data[i].d;
      g[j].push_back(sum);
    }
    x.d = T(0);
  }
  return g;
}

/// Compares a few derivatives with central differences.
template <class Reference>
void check_differences(const Reference& reference, Inputs<double> in, std::size_t k, const Expectation& e,
                       const std::string& what) {
  const auto total = [&] {
    const Array<double> y = reference(in);
    double sum = 0;
    for (std::size_t i = 0; i < e.r.size(); ++i) sum += e.r[i] * y.data[i];
    return sum;
  };
  double largest = 1;
  for (double g : e.grads[k].values) largest = std::max(largest, std::abs(g));
  const std::size_t n = in[k].data.size();
  for (std::size_t i = 0; i < n; i += n / 3 + 1) {
    double& x = in[k].data[i];
    const double at = x, h = 1e-5;
    x = at + h;
    const double above = total();
    x = at - h;
    const double below = total();
    x = at;
    expect_derivative(e.grads[k].values[i], (above - below) / (2 * h), largest, what + ", difference");
  }
}

/// Of a scalar y every r has the same errors, scaled: so the inputs are drawn anew instead.
template <class Reference>
void allow_gradients_of_draws(const Case& c, const Reference& reference, std::size_t k, const std::vector<float>& r,
                              Wanted& gradient) {
  Case other = c;
  for (std::uint64_t j = 1; j < kDraws; ++j) {
    other.seed = c.seed + j;
    const auto drawn = draw_inputs(other);
    const auto exact = reference_gradients<double>(reference, as_inputs<Dual<double>>(c, drawn), k, {r});
    const auto naive = reference_gradients<float>(reference, as_inputs<Dual<float>>(c, drawn), k, {r});
    allow(gradient, exact[0], rounded(naive[0], c.inputs[k].dtype));
  }
}

/// Tests `op` against `reference`; see the head of this file.
template <class Reference>
void check_op(const Case& c, const Reference& reference, const OpFn& op) {
  const auto values = draw_inputs(c);
  const Inputs<double> exact_in = as_inputs<double>(c, values);
  const Array<double> exact = reference(exact_in);
  Expectation e;
  e.shape = exact.shape;
  e.y = wanted(exact.data, rounded(reference(as_inputs<float>(c, values)).data, c.output));
  std::vector<std::vector<float>> rs;
  Case other = c;
  for (std::uint64_t j = 0; j < kDraws; ++j) {
    rs.push_back(rounded(normal_values(exact.shape.numel(), c.seed, 1000 + j), c.output));
    other.seed = c.seed + j;
    const auto drawn = draw_inputs(other);
    allow(e.y, reference(as_inputs<double>(c, drawn)).data,
          rounded(reference(as_inputs<float>(c, drawn)).data, c.output));
  }
  e.y.tolerance *= c.roundings;
  e.r = rs[0];
  const auto dual = as_inputs<Dual<double>>(c, values);
  const auto dual_float = as_inputs<Dual<float>>(c, values);
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    e.grads.emplace_back();
    if (!c.inputs[k].differentiated) continue;
    const auto gradients = reference_gradients<double>(reference, dual, k, rs);
    auto naive = reference_gradients<float>(reference, dual_float, k, rs);
    for (auto& n : naive) n = rounded(std::move(n), c.inputs[k].dtype);
    e.grads[k] = wanted(gradients[0], naive[0]);
    for (std::size_t j = 1; j < rs.size(); ++j) allow(e.grads[k], gradients[j], naive[j]);
    if (exact.shape.numel() == 1) allow_gradients_of_draws(c, reference, k, rs[0], e.grads[k]);
    e.grads[k].tolerance *= c.roundings;
    check_differences(reference, exact_in, k, e, c.name + ": input " + std::to_string(k));
  }
  check_runs(c, values, e, op);
}

}  // namespace cald::test
