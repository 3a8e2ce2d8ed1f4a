// cuBLASLt's matmul: D = epilogue(alpha op(A) op(B) + beta C), f32 and bf16, strided batches, host scalars, the default
// and the bias epilogue. What it does not know it refuses with CUBLAS_STATUS_NOT_SUPPORTED.
#include <cublasLt.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/stream.h"

namespace cald::emulation {
namespace {

// The library's descriptors are opaque; these stand behind the same pointers.
struct Layout {
  std::uint32_t type = 0;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::uint64_t rows = 0, columns = 0;
  std::int64_t leading = 0;
  std::int32_t batch = 1;
  std::int64_t batch_stride = 0;

  std::uint64_t index(std::uint64_t row, std::uint64_t column) const {
    return order == CUBLASLT_ORDER_COL ? row + column * leading : row * leading + column;
  }
  std::size_t element_bytes() const { return type == CUDA_R_16BF ? 2 : 4; }
  std::size_t bytes() const {
    if (!rows || !columns) return 0;
    return ((batch - 1) * batch_stride + index(rows - 1, columns - 1) + 1) * element_bytes();
  }
};

struct Operation {
  std::int32_t compute = 0, scale = 0;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  std::int32_t bias_type = -1;  // -1: as D
};

struct Preference {
  std::uint64_t workspace = 0;
};

Layout& of(cublasLtMatrixLayout_t p) { return *reinterpret_cast<Layout*>(p); }
Operation& of(cublasLtMatmulDesc_t p) { return *reinterpret_cast<Operation*>(p); }

template <class T>
cublasStatus_t set(T& field, const void* value, std::size_t bytes) {
  if (!value || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

float read(const void* p, std::uint32_t type, std::uint64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(p)[i];
  return std::bit_cast<float>(std::uint32_t{static_cast<const std::uint16_t*>(p)[i]} << 16);
}

void write(void* p, std::uint32_t type, std::uint64_t i, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(p)[i] = value;
    return;
  }
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = std::isnan(value) ? 0x7fff0000u : bits + 0x7fffu + (bits >> 16 & 1);
  static_cast<std::uint16_t*>(p)[i] = static_cast<std::uint16_t>(rounded >> 16);
}

struct Matmul {
  Operation operation;
  Layout a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;

  std::uint64_t inner() const { return operation.transpose_a == CUBLAS_OP_N ? a.columns : a.rows; }
  cublasStatus_t check() const;
  void run() const;

 private:
  std::vector<float> gather(const void* data, const Layout& layout, bool transposed, int item) const;
};

cublasStatus_t Matmul::check() const {
  for (const Layout* l : {&a, &b, &c, &d}) {
    if (l->type != CUDA_R_32F && l->type != CUDA_R_16BF) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (l->order != CUBLASLT_ORDER_COL && l->order != CUBLASLT_ORDER_ROW) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (l->batch != d.batch) return CUBLAS_STATUS_INVALID_VALUE;
    const std::uint64_t contiguous = l->order == CUBLASLT_ORDER_COL ? l->rows : l->columns;
    if (l->leading < static_cast<std::int64_t>(contiguous)) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool single = operation.compute == CUBLAS_COMPUTE_32F || operation.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                      operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const bool plain = operation.epilogue == CUBLASLT_EPILOGUE_DEFAULT || operation.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (!single || !plain || operation.scale != CUDA_R_32F || operation.pointer_mode != CUBLASLT_POINTER_MODE_HOST ||
      a.type != b.type || c.type != d.type || (a.type == CUDA_R_32F && d.type != CUDA_R_32F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool ta = operation.transpose_a != CUBLAS_OP_N, tb = operation.transpose_b != CUBLAS_OP_N;
  const bool fits = (ta ? a.columns : a.rows) == d.rows && (tb ? b.rows : b.columns) == d.columns &&
                    (tb ? b.columns : b.rows) == inner() && c.rows == d.rows && c.columns == d.columns;
  return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/// op(matrix) of one batch item, row-major f32; inputs of a tf32 product lose the bits that the hardware ignores.
std::vector<float> Matmul::gather(const void* data, const Layout& layout, bool transposed, int item) const {
  const std::uint64_t rows = transposed ? layout.columns : layout.rows;
  const std::uint64_t columns = transposed ? layout.rows : layout.columns;
  std::vector<float> values(rows * columns);
  for (std::uint64_t r = 0; r < rows; ++r)
    for (std::uint64_t k = 0; k < columns; ++k) {
      float v =
          read(data, layout.type, item * layout.batch_stride + (transposed ? layout.index(k, r) : layout.index(r, k)));
      if (operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32)
        v = std::bit_cast<float>(std::bit_cast<std::uint32_t>(v) & ~0x1fffu);
      values[r * columns + k] = v;
    }
  return values;
}

void Matmul::run() const {
  const std::uint32_t bias_type = operation.bias_type < 0 ? d.type : static_cast<std::uint32_t>(operation.bias_type);
  std::vector<float> sums(d.columns);
  for (int item = 0; item < d.batch; ++item) {
    const std::vector<float> left = gather(a_data, a, operation.transpose_a != CUBLAS_OP_N, item);
    const std::vector<float> right = gather(b_data, b, operation.transpose_b != CUBLAS_OP_N, item);
    for (std::uint64_t row = 0; row < d.rows; ++row) {
      sums.assign(d.columns, 0.0f);
      for (std::uint64_t k = 0; k < inner(); ++k)
        for (std::uint64_t column = 0; column < d.columns; ++column)
          sums[column] += left[row * inner() + k] * right[k * d.columns + column];
      for (std::uint64_t column = 0; column < d.columns; ++column) {
        float value = alpha * sums[column];
        if (beta != 0) value += beta * read(c_data, c.type, item * c.batch_stride + c.index(row, column));
        if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS) value += read(operation.bias, bias_type, row);
        write(d_data, d.type, item * d.batch_stride + d.index(row, column), value);
      }
    }
  }
}

}  // namespace
}  // namespace cald::emulation

using namespace cald::emulation;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int context;
  *handle = reinterpret_cast<cublasLtHandle_t>(&context);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
std::size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
      return "unknown cuBLAS status";
  }
}
const char* cublasLtGetStatusName(cublasStatus_t status) { return cublasLtGetStatusString(status); }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{static_cast<std::uint32_t>(type), CUBLASLT_ORDER_COL, rows, columns, leading, 1, 0});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                std::size_t bytes) {
  Layout& l = of(layout);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return set(l.type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set(l.order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return set(l.rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return set(l.columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return set(l.leading, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return set(l.batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return set(l.batch_stride, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  auto* o = new Operation;
  o->compute = compute;
  o->scale = scale;
  *operation = reinterpret_cast<cublasLtMatmulDesc_t>(o);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete reinterpret_cast<Operation*>(operation);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  Operation& o = of(operation);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return set(o.compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return set(o.scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return set(o.pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(o.transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(o.transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(o.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(o.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(o.bias_type, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t bytes) {
  if (attribute != CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return CUBLAS_STATUS_SUCCESS;  // hints to the search
  return set(reinterpret_cast<Preference*>(preference)->workspace, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  *returned = 0;
  if (requested <= 0) return CUBLAS_STATUS_INVALID_VALUE;
  const Matmul m{of(operation), of(a), of(b), of(c), of(d), nullptr, nullptr, nullptr, nullptr, 1, 0};
  if (cublasStatus_t status = m.check()) return status;
  results[0] = {};
  results[0].wavesCount = 1;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void*, std::size_t,
                              cudaStream_t stream) {
  const Operation& o = of(operation);
  const Matmul m{o,
                 of(a_layout),
                 of(b_layout),
                 of(c_layout),
                 of(d_layout),
                 a,
                 b,
                 c,
                 d,
                 *static_cast<const float*>(alpha),
                 *static_cast<const float*>(beta)};
  if (cublasStatus_t status = m.check()) return status;
  const bool bias = o.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (!device_holds(a, m.a.bytes()) || !device_holds(b, m.b.bytes()) || !device_holds(d, m.d.bytes()) ||
      (m.beta != 0 && !device_holds(c, m.c.bytes())) || (bias && !device_holds(o.bias, m.d.rows)))
    return CUBLAS_STATUS_INVALID_VALUE;
  enqueue(stream, [m] { m.run(); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
