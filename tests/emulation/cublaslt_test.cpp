// The stand-in for cuBLASLt's matmul against plain sums.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cmath>

#include "tests/emulation/support.h"

namespace cald::test {
namespace {

struct Matrix {
  cublasLtMatrixLayout_t layout = nullptr;
  Matrix(cudaDataType type, std::uint64_t rows, std::uint64_t columns, std::int64_t leading) {
    EXPECT_EQ(cublasLtMatrixLayoutCreate(&layout, type, rows, columns, leading), CUBLAS_STATUS_SUCCESS);
  }
  ~Matrix() { cublasLtMatrixLayoutDestroy(layout); }
  template <class T>
  void set(cublasLtMatrixLayoutAttribute_t attribute, T value) {
    EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
  }
};

struct Product {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  explicit Product(cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F);
  }
  ~Product() {
    cublasLtMatmulDescDestroy(operation);
    cublasLtDestroy(handle);
  }
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
  }
  cublasStatus_t run(float alpha, const void* a, const Matrix& la, const void* b, const Matrix& lb, float beta, void* d,
                     const Matrix& ld) {
    return cublasLtMatmul(handle, operation, &alpha, a, la.layout, b, lb.layout, &beta, d, ld.layout, d, ld.layout,
                          nullptr, nullptr, 0, nullptr);
  }
};

std::vector<float> ramp(std::size_t n, float step) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(static_cast<int>(i % 13) - 6) * step;
  return v;
}

TEST(CublasLt, TransposedBatchesWithBiasAndBeta) {
  // Column-major: d (m, n) = alpha a^T b + beta d + bias, with a (k, m) and b (k, n); two of each.
  const int m = 3, n = 4, k = 5, leading = 7;
  const std::vector<float> a = ramp(2 * leading * m, 0.5f), b = ramp(2 * k * n, 0.25f), d0 = ramp(2 * m * n, 1);
  const std::vector<float> bias = {10, 20, 30};
  Buffer<float> da(a), db(b), dd(d0), dbias(bias);
  Matrix la(CUDA_R_32F, k, m, leading), lb(CUDA_R_32F, k, n, k), ld(CUDA_R_32F, m, n, m);
  for (auto [matrix, stride] : {std::pair{&la, leading * m}, {&lb, k * n}, {&ld, m * n}}) {
    matrix->set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{2});
    matrix->set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, std::int64_t{stride});
  }
  Product product;
  product.set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  product.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(dbias.get()));
  ASSERT_EQ(product.run(2, da.get(), la, db.get(), lb, 0.5f, dd.get(), ld), CUBLAS_STATUS_SUCCESS);
  const std::vector<float> got = dd.read();
  for (int item = 0; item < 2; ++item)
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        float sum = 0;
        for (int l = 0; l < k; ++l) sum += a[item * leading * m + i * leading + l] * b[item * k * n + j * k + l];
        const int at = item * m * n + j * m + i;
        EXPECT_FLOAT_EQ(got[at], 2 * sum + 0.5f * d0[at] + bias[i]);
      }
}

TEST(CublasLt, Bf16InRowMajorOrder) {
  const int m = 2, n = 3, k = 4;
  const std::vector<float> a = ramp(m * k, 0.5f), b = ramp(k * n, 0.25f);
  std::vector<__nv_bfloat16> ha(m * k), hb(k * n);
  for (int i = 0; i < m * k; ++i) ha[i] = __float2bfloat16(a[i]);
  for (int i = 0; i < k * n; ++i) hb[i] = __float2bfloat16(b[i]);
  Buffer<__nv_bfloat16> da(ha), db(hb), dd(m * n);
  Matrix la(CUDA_R_16BF, m, k, k), lb(CUDA_R_16BF, k, n, n), ld(CUDA_R_16BF, m, n, n);
  for (Matrix* matrix : {&la, &lb, &ld}) matrix->set(CUBLASLT_MATRIX_LAYOUT_ORDER, CUBLASLT_ORDER_ROW);
  Product product;
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t result;
  int found = 0;
  cublasLtMatmulPreferenceCreate(&preference);
  EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(product.handle, product.operation, la.layout, lb.layout, ld.layout,
                                           ld.layout, preference, 1, &result, &found),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(found, 1);
  cublasLtMatmulPreferenceDestroy(preference);
  // beta 0 must not read the NaN that d holds.
  ASSERT_EQ(product.run(1, da.get(), la, db.get(), lb, 0, dd.get(), ld), CUBLAS_STATUS_SUCCESS);
  const std::vector<__nv_bfloat16> got = dd.read();
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int l = 0; l < k; ++l) sum += a[i * k + l] * b[l * n + j];
      EXPECT_EQ(__bfloat162float(got[i * n + j]), __bfloat162float(__float2bfloat16(sum)));
    }
}

TEST(CublasLt, RefusesWhatDoesNotFit) {
  Buffer<float> x(16);
  Matrix square(CUDA_R_32F, 4, 4, 4), wide(CUDA_R_32F, 4, 5, 4), squeezed(CUDA_R_32F, 4, 4, 3),
      half(CUDA_R_16F, 4, 4, 4);
  Product product;
  auto run = [&](const Matrix& a, const Matrix& b) {
    return product.run(1, x.get(), a, x.get(), b, 0, x.get(), square);
  };
  EXPECT_EQ(run(square, wide), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(squeezed, square), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(half, half), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(product.run(1, x.get() + 1, square, x.get(), square, 0, x.get(), square), CUBLAS_STATUS_INVALID_VALUE);
  product.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_GELU);
  EXPECT_EQ(run(square, square), CUBLAS_STATUS_NOT_SUPPORTED);
}

}  // namespace
}  // namespace cald::test
