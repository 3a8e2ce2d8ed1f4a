// Pinned host memory between the program's own and the device's: copies from and to it do not make the host wait.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

namespace cald::cuda {

class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  /// The stream copies the bytes to the device, as they are now.
  void upload(cudaStream_t stream, void* to, const void* from, std::size_t bytes);
  /// The stream copies the bytes from the device; deliver() hands them on to the host's `to`.
  void download(cudaStream_t stream, void* to, const void* from, std::size_t bytes);
  /// The stream has done all that it was given: downloads go to their places, and all memory is free again.
  void deliver();
  /// Forgets the downloads that have not been delivered.
  void forget() { arriving_.clear(); }

 private:
  struct Block {
    char* data;
    std::size_t bytes;
  };
  struct Arriving {
    void* to;
    const void* at;
    std::size_t bytes;
  };

  /// Memory that nothing else gets until deliver(). New blocks are taken while the amount that is under way still
  /// grows: in the steady state none.
  void* take(std::size_t bytes);

  std::vector<Block> blocks_;
  std::size_t block_ = 0, used_ = 0;  // all before `block_`, and of it `used_` bytes, are under way
  std::vector<Arriving> arriving_;
};

}  // namespace cald::cuda
