// Exec: the context that every launch receives. Nothing of it is global.
#pragma once
#include <cstddef>

#include "engine/base/dtype.h"

namespace cald {

enum class Device { meta, cpu, cuda };

/// Where and how a kernel runs. `workspace` holds at least workspace_bytes(args) bytes during a launch.
struct Exec {
  Device device = Device::cpu;
  int threads = 1;
  DType compute = DType::f32;  ///< f32 or bf16: what models round the inputs of matrix products and attention to
  bool tf32 = false;           ///< CUDA: products of f32 may round their inputs to TF32, 10 bits, for the tensor cores
  void* stream = nullptr;      ///< the backend's own stream handle; unused on the CPU
  void* state = nullptr;       ///< what the backend keeps from launch to launch; unused on the CPU
  void* workspace = nullptr;
};

}  // namespace cald
