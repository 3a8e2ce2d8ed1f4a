// Helpers of the emulator's tests: device buffers, all schedules, expected failures.
#pragma once
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#ifndef CALD_ON_DEVICE
#include "kernels/cuda/emulation/scheduler.h"
#endif

namespace cald::test {

inline void check(cudaError_t error) {
  EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
  if (error != cudaSuccess) cudaGetLastError();  // the next test starts clean
}

/// Device memory of n values.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t n) : size_(n) {
    check(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T)));
#ifdef CALD_ON_DEVICE
    check(cudaMemset(data_, 0xff, n * sizeof(T)));  // NaN, as the emulator's is by itself
#endif
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    check(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }

  T* get() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

/// Runs `body` under ascending, descending and random schedules; a device has its own.
template <class Body>
void with_every_schedule(const Body& body) {
#ifdef CALD_ON_DEVICE
  body();
#else
  const std::uint64_t before = emulation::schedule_seed();
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE("schedule seed " + std::to_string(seed));
    emulation::set_schedule_seed(seed);
    body();
  }
  emulation::set_schedule_seed(before);
#endif
}

/// The launch (its error is `error`) has failed, and the message has all the parts.
inline void expect_failure(cudaError_t error, const std::vector<std::string>& parts) {
  ASSERT_EQ(error, cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  const std::string message = cudaGetErrorString(error);
  for (const std::string& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks " << part;
}

inline std::string line(const char* file, int number) { return std::string(file) + ":" + std::to_string(number); }

}  // namespace cald::test
