#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/check_launch.h"
#include "kernels/transfer.h"

namespace cald::cuda {
namespace {
constexpr std::size_t kBlock = std::size_t{1} << 20, kAlignment = 16;
}  // namespace

Staging::~Staging() {
  for (const Block& b : blocks_) cudaFreeHost(b.data);
}

void* Staging::take(std::size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  for (; block_ < blocks_.size(); ++block_, used_ = 0)
    if (blocks_[block_].bytes - used_ >= bytes) break;
  if (block_ == blocks_.size()) {
    void* data = nullptr;
    const std::size_t size = std::max(kBlock, bytes);
    check_launch("pinned memory", cudaMallocHost(&data, size));
    blocks_.push_back({static_cast<char*>(data), size});
  }
  void* at = blocks_[block_].data + used_;
  used_ += bytes;
  return at;
}

void Staging::upload(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  void* at = take(bytes);
  std::memcpy(at, from, bytes);
  check_launch(Upload::name, cudaMemcpyAsync(to, at, bytes, cudaMemcpyHostToDevice, stream));
}

void Staging::download(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  void* at = take(bytes);
  check_launch(Download::name, cudaMemcpyAsync(at, from, bytes, cudaMemcpyDeviceToHost, stream));
  arriving_.push_back({to, at, bytes});
}

void Staging::deliver() {
  for (const Arriving& a : arriving_) std::memcpy(a.to, a.at, a.bytes);
  arriving_.clear();
  block_ = used_ = 0;
}

}  // namespace cald::cuda
