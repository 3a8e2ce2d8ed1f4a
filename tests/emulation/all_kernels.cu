// The test kernels for nvcc: each is launched once, so that each is compiled.
#include "tests/emulation/kernels.cuh"

namespace cald::test {

cudaError_t launch_all(int* i, float* f, const __nv_bfloat16* b, std::uint16_t* h, std::uint32_t* w, float4* v) {
  const cuda::Launch warp{dim3(1), dim3(32), 0, nullptr};
  cuda::launch(warp_functions, warp, i);
  cuda::launch(barrier_functions, warp, i);
  cuda::launch(block_sum, {dim3(1), dim3(64), 100 << 10, nullptr}, f, 8, f);
  cuda::launch(early_exit, warp, f, 8);
  cuda::launch(atomics, warp, i, 8, i, f, i, i);
  cuda::launch(matmul_bf16, warp, b, b, f, 16, 16);
  cuda::launch(matmul_tf32<true>, warp, f, f, f);
  cuda::launch(matmul_tf32<false>, warp, f, f, f);
  cuda::launch(load_tiles<1, false>, warp, h, w);
  cuda::launch(load_tiles<1, true>, warp, h, w);
  cuda::launch(load_tiles<2, false>, warp, h, w);
  cuda::launch(load_tiles<2, true>, warp, h, w);
  cuda::launch(load_tiles<4, false>, warp, h, w);
  cuda::launch(load_tiles<4, true>, warp, h, w);
  cuda::launch(copy_rows, warp, v, v, 7);
  cuda::launch(axpy, warp, 2, f, f, 8);
  cuda::launch(affine, warp, f, Affine{2, 3}, 8);
  cuda::launch(read_fresh, warp, f, f);
  return cuda::launch(block_order, warp, i, i);
}

}  // namespace cald::test
