// Matrix products by cuBLASLt; no other file but device_functions.cu knows it. f32 is multiplied in f32, unless Exec
// allows TF32, which loses 13 bits of every operand.
#include "kernels/gemm.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/device_state.h"
#include "kernels/elementwise.h"

namespace cald {
namespace {

constexpr std::size_t kAlignment = 256;

/// Scratch memory that cuBLASLt may choose algorithms for: NVIDIA advises 32 MiB on sm_90; a small product, whose sum
/// over k may be split, needs no more than its result for each of 16 parts.
std::size_t scratch_bytes(const GemmOperands& o) {
  constexpr std::size_t kMost = std::size_t{32} << 20, kParts = 16;
  const std::size_t parts = static_cast<std::size_t>(o.m * o.n * o.batches) * sizeof(float) * kParts;
  return std::min(kMost, (parts + kAlignment - 1) / kAlignment * kAlignment);
}

void check(cublasStatus_t status, const GemmOperands& o) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(std::string("gemm: cuBLASLt: ") + cublasLtGetStatusName(status) + " (M " + std::to_string(o.m) + ", N " +
              std::to_string(o.n) + ", K " + std::to_string(o.k) + ")");
}

cudaDataType type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// A matrix of cuBLASLt's, which counts by columns: rows with unit stride are its columns.
class MatrixLayout {
 public:
  MatrixLayout(const GemmOperand& m, const TensorRef& t, bool transposed, const GemmOperands& o)
      : leading_(transposed ? std::max(m.col_step, m.rows) : std::max(m.row_step, m.cols)) {
    const std::int64_t inner = transposed ? m.rows : m.cols, outer = transposed ? m.cols : m.rows;
    check(cublasLtMatrixLayoutCreate(&layout_, type_of(t.dtype), static_cast<std::uint64_t>(inner),
                                     static_cast<std::uint64_t>(outer), leading_),
          o);
    set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(o.batches), o);
    set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, m.batch_step, o);
  }
  MatrixLayout(const MatrixLayout&) = delete;
  MatrixLayout& operator=(const MatrixLayout&) = delete;
  ~MatrixLayout() { cublasLtMatrixLayoutDestroy(layout_); }

  operator cublasLtMatrixLayout_t() const { return layout_; }
  std::int64_t leading() const { return leading_; }

 private:
  template <class T>
  void set(cublasLtMatrixLayoutAttribute_t attribute, T value, const GemmOperands& o) {
    check(cublasLtMatrixLayoutSetAttribute(layout_, attribute, &value, sizeof value), o);
  }
  cublasLtMatrixLayout_t layout_ = nullptr;
  std::int64_t leading_;
};

/// One of cuBLASLt's objects, with the functions that set its attributes and end it.
template <class Handle, auto kSet, auto kDestroy>
class Object {
 public:
  /// create(Handle*) makes it.
  template <class Create>
  Object(const GemmOperands& o, const Create& create) : sizes_(o) {
    check(create(&handle_), o);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() { kDestroy(handle_); }

  operator Handle() const { return handle_; }
  template <class Attribute, class T>
  void set(Attribute attribute, T value) {
    check(kSet(handle_, attribute, &value, sizeof value), sizes_);
  }

 private:
  const GemmOperands& sizes_;
  Handle handle_ = nullptr;
};
using Operation = Object<cublasLtMatmulDesc_t, cublasLtMatmulDescSetAttribute, cublasLtMatmulDescDestroy>;
using Preference =
    Object<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceSetAttribute, cublasLtMatmulPreferenceDestroy>;

/// The largest power of two up to kAlignment that divides the address.
std::uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data) | kAlignment;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

/// c^T = op(b)^T op(a)^T by columns: cuBLASLt's first operand is b, its second a.
struct Product {
  const Gemm& g;
  GemmOperands o;
  bool tf32, fused;
  MatrixLayout first, second, result;
  Operation operation;

  /// A null bias is none.
  Product(const Exec& exec, const Gemm& gemm, const void* bias)
      : g(gemm),
        o(gemm_operands(gemm)),
        tf32(exec.tf32 && gemm.a.dtype == DType::f32),
        fused(bias != nullptr),
        first(o.b, g.b, g.transpose_b, o),
        second(o.a, g.a, g.transpose_a, o),
        result(o.c, g.c.to, false, o),
        operation(o, [this](auto* d) {
          return cublasLtMatmulDescCreate(d, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
        }) {
    operation.set(CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    operation.set(CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!bias) return;
    operation.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    operation.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }

  cuda::Products::Key key() const {
    const auto bits = [](bool x, int at) { return static_cast<std::int64_t>(x) << at; };
    return {o.m,
            o.n,
            o.k,
            o.batches,
            first.leading(),
            second.leading(),
            result.leading(),
            o.a.batch_step,
            o.b.batch_step,
            o.c.batch_step,
            alignment_of(g.a.data),
            alignment_of(g.b.data),
            alignment_of(g.c.to.data),
            bits(g.transpose_a, 0) | bits(g.transpose_b, 1) | bits(fused, 2) | bits(g.c.add, 3) | bits(tf32, 4),
            static_cast<std::int64_t>(g.a.dtype),
            static_cast<std::int64_t>(g.c.to.dtype)};
  }

  cublasLtMatmulAlgo_t choose(cublasLtHandle_t handle) const {
    Preference preference(o, cublasLtMatmulPreferenceCreate);
    preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{scratch_bytes(o)});
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(g.b.data));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(g.a.data));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(g.c.to.data));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(g.c.to.data));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    check(
        cublasLtMatmulAlgoGetHeuristic(handle, operation, first, second, result, result, preference, 1, &best, &found),
        o);
    check(found > 0 ? best.state : CUBLAS_STATUS_NOT_SUPPORTED, o);
    return best.algo;
  }
};

/// c's rows become (or are increased by) the bias, or zero without one: what is left of a product without any k.
template <class T>
__global__ void __launch_bounds__(256) rows_from_bias(T* c, GemmOperand layout, const float* bias, bool add) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= layout.cols) return;
  for (std::int64_t row = blockIdx.y; row < layout.rows; row += gridDim.y) {
    T& to = c[blockIdx.z * layout.batch_step + row * layout.row_step + column];
    const float before = add ? static_cast<float>(to) : 0.0f;
    to = static_cast<T>(before + (bias ? bias[column] : 0.0f));
  }
}

template <class T>
void write_bias(const Exec& exec, const Gemm& g, const GemmOperands& o, bool add) {
  constexpr unsigned kThreads = 256;
  const dim3 grid((static_cast<unsigned>(o.n) + kThreads - 1) / kThreads,
                  static_cast<unsigned>(std::min<std::int64_t>(o.m, 1024)), static_cast<unsigned>(o.batches));
  cuda::check_launch(Gemm::name,
                     cuda::launch(rows_from_bias<T>, {grid, kThreads, 0, static_cast<cudaStream_t>(exec.stream)},
                                  g.c.to.as<T>(), o.c, g.bias.present ? g.bias.f32() : nullptr, add));
}

/// Sets c to the bias, or adds the bias.
void write_bias(const Exec& exec, const Gemm& g, const GemmOperands& o, bool add) {
  if (g.c.to.dtype == DType::bf16) return write_bias<__nv_bfloat16>(exec, g, o, add);
  write_bias<float>(exec, g, o, add);
}

/// What the kernels behind cuBLASLt may load of a bias at a time; no preference tells it of less.
bool is_fusible(const TensorRef& bias) { return bias.present && reinterpret_cast<std::uintptr_t>(bias.data) % 16 == 0; }

/// Bytes of an operand's copy in bf16.
std::size_t rounded_bytes(const TensorRef& x) {
  const std::size_t bytes = static_cast<std::size_t>(x.numel()) * size_of(DType::bf16);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
/// A bias has the dtype of c.
bool bias_is_rounded(const Gemm& g) { return g.bias.present && g.c.to.dtype == DType::bf16; }
bool b_is_rounded(const Gemm& g) { return g.b.dtype != g.a.dtype; }

/// x is rounded to bf16 at `to`, which then moves behind it.
void round(Exec& exec, TensorRef& x, std::byte*& to) {
  const TensorRef rounded{to, DType::bf16, x.shape, contiguous_strides(x.shape), true};
  run<Device::cuda>(exec, Copy{x, rounded});
  x = rounded;
  to += rounded_bytes(x);
}

}  // namespace

template <>
std::size_t packed_bytes<Device::cuda>(const Shape&, Packing) {
  return 0;
}

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const Gemm& g) {
  const GemmOperands o = gemm_operands(g);
  if (o.m * o.n * o.k * o.batches == 0) return 0;
  return scratch_bytes(o) + (bias_is_rounded(g) ? rounded_bytes(g.bias) : 0) +
         (b_is_rounded(g) ? rounded_bytes(g.b) : 0);
}

template <>
void run<Device::cuda>(Exec& exec, const Gemm& given) {
  const GemmOperands o = gemm_operands(given);
  if (o.m * o.n * o.batches == 0) return;
  if (o.k == 0) return write_bias(exec, given, o, given.c.add);
  Gemm g = given;
  TensorRef bias = g.bias;
  auto* rounded = static_cast<std::byte*>(exec.workspace) + scratch_bytes(o);
  if (b_is_rounded(g)) round(exec, g.b, rounded);
  if (bias_is_rounded(g)) round(exec, bias, rounded);
  auto& products = static_cast<cuda::DeviceState*>(exec.state)->products;
  const bool fused = is_fusible(bias);
  const Product product(exec, g, fused ? bias.data : nullptr);
  const auto key = product.key();
  auto algorithm = products.algorithms.find(key);
  if (algorithm == products.algorithms.end())
    algorithm = products.algorithms.emplace(key, product.choose(products.handle)).first;
  const float alpha = g.alpha, beta = g.c.add ? 1.0f : 0.0f;
  check(cublasLtMatmul(products.handle, product.operation, &alpha, g.b.data, product.first, g.a.data, product.second,
                       &beta, g.c.to.data, product.result, g.c.to.data, product.result, &algorithm->second,
                       exec.workspace, scratch_bytes(o), static_cast<cudaStream_t>(exec.stream)),
        o);
  if (bias.present && !fused) write_bias(exec, g, o, true);
}

}  // namespace cald
