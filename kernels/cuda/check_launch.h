// Errors of CUDA's calls as this program's own.
#pragma once
#include <string>

#include "engine/base/error.h"
#include "kernels/cuda/device.cuh"

namespace cald::cuda {

/// Error with the launch's name and CUDA's message unless the call succeeded.
inline void check_launch(const char* name, cudaError_t error) {
  if (error != cudaSuccess) throw Error(std::string(name) + ": CUDA: " + cudaGetErrorString(error));
}

}  // namespace cald::cuda
