// Fill, copy, add, activations, dropout and the test for non-finite values on CUDA.
#include "kernels/elementwise.h"

#include <string>

#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/elementwise.cuh"

namespace cald {
namespace {

using Bf16Device = __nv_bfloat16;

void check_pair(const char* kernel, const TensorRef& x, const TensorRef& y) {
  if (!(x.shape == y.shape))
    throw Error(std::string(kernel) + ": shapes " + x.shape.str() + " and " + y.shape.str() + " differ");
}

template <class T>
void fill_as(const Exec& exec, const TensorRef& y, T value) {
  cuda::walk<1>(exec, Fill::name, {y}, cuda::FillElement<T>{y.as<T>(), value});
}

template <class T>
void copy_as(const Exec& exec, const Copy& c) {
  cuda::walk<2>(exec, Copy::name, {c.x, c.y}, cuda::CopyElement<T>{c.x.as<T>(), c.y.as<T>()});
}
template <class X, class Y>
void convert_as(const Exec& exec, const Copy& c) {
  cuda::walk<2>(exec, Copy::name, {c.x, c.y}, cuda::ConvertElement<X, Y>{c.x.as<X>(), c.y.as<Y>()});
}

/// Calls fn.template operator()<the activation>().
template <class Fn>
void with_activation(Activation f, const Fn& fn) {
  switch (f) {
    case Activation::gelu:
      return fn.template operator()<Activation::gelu>();
    case Activation::gelu_tanh:
      return fn.template operator()<Activation::gelu_tanh>();
    case Activation::relu:
      return fn.template operator()<Activation::relu>();
    case Activation::tanh:
      return fn.template operator()<Activation::tanh>();
    case Activation::silu:
      return fn.template operator()<Activation::silu>();
  }
}

template <class T>
void activate_as(const Exec& exec, const ActivationForward& a) {
  with_activation(a.f, [&]<Activation kF>() {
    cuda::walk<2>(exec, a.name, {a.x, a.y}, cuda::ActivateElement<kF, T>{a.x.as<T>(), a.y.as<T>()});
  });
}
template <class T>
void activate_backward_as(const Exec& exec, const ActivationBackward& a) {
  const TensorRef& dx = a.dx.to;
  with_activation(a.f, [&]<Activation kF>() {
    const auto element = [&]<bool kValue>() {
      return cuda::ActivateBackwardElement<kF, T, kValue>{a.x.as<T>(), a.dy.as<T>(), dx.as<T>(), a.dx.add, a.y.as<T>()};
    };
    if (a.y.present)
      cuda::walk<4>(exec, a.name, {a.x, a.dy, dx, a.y}, element.template operator()<true>());
    else
      cuda::walk<3>(exec, a.name, {a.x, a.dy, dx}, element.template operator()<false>());
  });
}

}  // namespace

template <>
void run<Device::cuda>(Exec& exec, const Fill& f) {
  switch (f.y.dtype) {
    case DType::f32:
      return fill_as(exec, f.y, f.value);
    case DType::bf16:
      return fill_as(exec, f.y, __float2bfloat16_rn(f.value));
    case DType::i32:
      return fill_as(exec, f.y, static_cast<std::int32_t>(f.value));
    case DType::i64:
      return fill_as(exec, f.y, static_cast<std::int64_t>(f.value));
    case DType::boolean:
      return fill_as(exec, f.y, static_cast<std::uint8_t>(f.value != 0.0f));
  }
}

template <>
void run<Device::cuda>(Exec& exec, const Copy& c) {
  check_pair(Copy::name, c.x, c.y);
  const DType from = c.x.dtype, to = c.y.dtype;
  if (from == DType::f32 && to == DType::bf16) return convert_as<float, Bf16Device>(exec, c);
  if (from == DType::bf16 && to == DType::f32) return convert_as<Bf16Device, float>(exec, c);
  if (from != to) throw Error(std::string("copy: no conversion from ") + name_of(from) + " to " + name_of(to));
  switch (size_of(from)) {
    case 1:
      return copy_as<std::uint8_t>(exec, c);
    case 2:
      return copy_as<std::uint16_t>(exec, c);
    case 4:
      return copy_as<std::uint32_t>(exec, c);
    default:
      return copy_as<std::uint64_t>(exec, c);
  }
}

template <>
void run<Device::cuda>(Exec& exec, const Add& s) {
  check_pair(Add::name, s.a, s.y);
  if (s.beta == 0.0f)
    return cuda::walk<2>(exec, Add::name, {s.a, s.y}, cuda::ScaleElement{s.a.f32(), s.y.f32(), s.alpha});
  check_pair(Add::name, s.b, s.y);
  cuda::walk<3>(exec, Add::name, {s.a, s.b, s.y}, cuda::AddElement{s.a.f32(), s.b.f32(), s.y.f32(), s.alpha, s.beta});
}

template <>
void run<Device::cuda>(Exec& exec, const FindNonFinite& f) {
  auto* flag = f.flag.as<std::int32_t>();
  if (f.x.dtype == DType::bf16)
    cuda::walk<1>(exec, f.name, {f.x}, cuda::FindElement<Bf16Device>{f.x.as<Bf16Device>(), flag});
  else
    cuda::walk<1>(exec, f.name, {f.x}, cuda::FindElement<float>{f.x.f32(), flag});
}

template <>
void run<Device::cuda>(Exec& exec, const ActivationForward& a) {
  check_pair(a.name, a.x, a.y);
  a.x.dtype == DType::bf16 ? activate_as<Bf16Device>(exec, a) : activate_as<float>(exec, a);
}

template <>
void run<Device::cuda>(Exec& exec, const ActivationBackward& a) {
  check_pair(a.name, a.x, a.dx.to);
  check_pair(a.name, a.dy, a.dx.to);
  if (a.y.present) check_pair(a.name, a.y, a.dx.to);
  a.x.dtype == DType::bf16 ? activate_backward_as<Bf16Device>(exec, a) : activate_backward_as<float>(exec, a);
}

template <>
void run<Device::cuda>(Exec& exec, const DropoutApply& a) {
  check_pair(a.name, a.x, a.y.to);
  const TensorRef &x = a.x, &y = a.y.to;
  if (!a.dropout.active()) {
    if (a.y.add) return run<Device::cuda>(exec, Add{x, y, y});
    return run<Device::cuda>(exec, Copy{x, y});
  }
  if (x.numel() == 0) return;
  const bool rows = x.shape.rank() == 3;
  bool vectors = cuda::begins_with_vector(x, 4) && cuda::begins_with_vector(y, 4);
  for (int d = 0; d + 1 < x.shape.rank(); ++d) vectors = vectors && x.strides[d] % 4 == 0 && y.strides[d] % 4 == 0;
  const cuda::DropoutRows rule{x.f32(),
                               y.f32(),
                               {x.strides[0], rows ? x.strides[1] : 0},
                               {y.strides[0], rows ? y.strides[1] : 0},
                               a.samples.as<std::int32_t>(),
                               a.samples.strides[0],
                               rows ? static_cast<int>(x.dim(1)) : 1,
                               static_cast<int>(x.cols()),
                               vectors,
                               a.y.add,
                               a.dropout.key,
                               a.dropout.threshold(),
                               a.dropout.scale()};
  constexpr unsigned kThreads = 128;
  const dim3 grid((static_cast<unsigned>(rule.features) + 4 * kThreads - 1) / (4 * kThreads),
                  static_cast<unsigned>(std::min(rule.positions, 65535)), static_cast<unsigned>(x.dim(0)));
  cuda::check_launch(
      a.name, cuda::launch(cuda::dropout_rows, {grid, kThreads, 0, static_cast<cudaStream_t>(exec.stream)}, rule));
}

}  // namespace cald
