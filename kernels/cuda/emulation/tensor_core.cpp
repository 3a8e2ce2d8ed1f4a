#include "kernels/cuda/emulation/tensor_core.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/observer.h"

namespace cald::emulation {
namespace {

bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

void land(const AsyncCopy& copy) {
  if (copy.global)
    std::memcpy(copy.shared, copy.global, 16);
  else
    std::memset(copy.shared, 0, 16);
}

void need_whole_warp(const char* op, unsigned lanes, const Location& at) {
  if (lanes != ~0u) fail(at, std::string(op) + " needs all 32 lanes of the warp");
}

// Where lane l's registers stand in an 8x8 tile of the PTX fragment layouts: row l / 4, columns from (l % 4) * step.
int tile_row(int lane) { return lane >> 2; }
int tile_column(int lane) { return lane & 3; }

struct LoadMatrix {
  std::uint16_t row[8];  // the row whose address this lane supplies
  std::uint32_t* registers;
  int count;
  bool transposed;
};

void finish_load_matrix(void* const* args, unsigned lanes, const Location& at) {
  need_whole_warp("ldmatrix", lanes, at);
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<LoadMatrix*>(args[lane]);
    for (int m = 0; m < mine.count; ++m) {
      auto element = [&](int r, int c) {
        if (mine.transposed) std::swap(r, c);
        return std::uint32_t{static_cast<LoadMatrix*>(args[m * 8 + r])->row[c]};
      };
      const int r = tile_row(lane), c = tile_column(lane) * 2;
      mine.registers[m] = element(r, c) | element(r, c + 1) << 16;
    }
  }
}

struct Mma {
  float* d;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

float bf16_half(std::uint32_t pair, int half) { return std::bit_cast<float>(half ? pair & 0xffff0000u : pair << 16); }

/// D (16x8) += A (16xK) B (Kx8). A register holds `kPack` neighbours along K as read by `element(register, i)`.
template <int kPack, class Element>
void finish_mma(void* const* args, const Element& element) {
  constexpr int kK = 8 * kPack;
  float a[16][kK], b[kK][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& m = *static_cast<Mma*>(args[lane]);
    const int g = tile_row(lane), t = tile_column(lane);
    for (int i = 0; i < kPack; ++i) {
      for (int r = 0; r < 4; ++r) a[g + (r & 1) * 8][t * kPack + i + (r >> 1) * 4 * kPack] = element(m.a[r], i);
      for (int r = 0; r < 2; ++r) b[t * kPack + i + r * 4 * kPack][g] = element(m.b[r], i);
    }
    for (int r = 0; r < 4; ++r) d[g + (r >> 1) * 8][t * 2 + (r & 1)] = m.d[r];
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kK; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < 32; ++lane)
    for (int r = 0; r < 4; ++r)
      static_cast<Mma*>(args[lane])->d[r] = d[tile_row(lane) + (r >> 1) * 8][tile_column(lane) * 2 + (r & 1)];
}

void finish_mma_bf16(void* const* args, unsigned lanes, const Location& at) {
  need_whole_warp("mma.m16n8k16", lanes, at);
  finish_mma<2>(args, bf16_half);
}

// The hardware ignores the low 13 bits of a tf32 operand.
void finish_mma_tf32(void* const* args, unsigned lanes, const Location& at) {
  need_whole_warp("mma.m16n8k8", lanes, at);
  finish_mma<1>(args, [](std::uint32_t bits, int) { return std::bit_cast<float>(bits & ~0x1fffu); });
}

}  // namespace

void copy_async(void* shared, const void* global, bool valid, const Location& at) {
  if (!aligned16(shared) || (valid && !aligned16(global))) fail(at, "cp.async: an address is not aligned to 16 bytes");
  if (!shared_memory::holds(shared, 16)) fail(at, "cp.async: destination outside the block's shared memory");
  if (valid && !device_holds(global, 16)) fail(at, "cp.async: source outside device memory");
  const void* pc = __builtin_return_address(0);
  if (valid) note_access(global, 16, Access::read, pc);
  note_access(shared, 16, Access::issue, pc);
  AsyncCopies& copies = async_copies();
  AsyncCopy copy{shared, valid ? global : nullptr, !lands_late(), copies.group, at};
  if (copy.landed) land(copy);
  copies.pending.push_back(copy);
}

void wait_copies(unsigned groups_in_flight) {
  AsyncCopies& copies = async_copies();
  auto waits = [&](const AsyncCopy& c) { return c.group + groups_in_flight < copies.group; };
  auto end = std::find_if_not(copies.pending.begin(), copies.pending.end(), waits);
  for (auto c = copies.pending.begin(); c != end; ++c) {
    if (!c->landed) land(*c);
    note_access(c->shared, 16, Access::land, __builtin_return_address(0));
  }
  copies.pending.erase(copies.pending.begin(), end);
}

void load_matrix(std::uint32_t* registers, int count, bool transposed, const void* row, const Location& at) {
  LoadMatrix arg{{}, registers, count, transposed};
  if (static_cast<int>(lane_id()) < count * 8) {  // the other lanes' addresses are not used
    if (!aligned16(row)) fail(at, "ldmatrix: a row's address is not aligned to 16 bytes");
    if (!shared_memory::holds(row, 16)) fail(at, "ldmatrix: a row lies outside the block's shared memory");
    note_access(row, 16, Access::read, __builtin_return_address(0));
    std::memcpy(arg.row, row, 16);
  }
  collective("ldmatrix", ~0u, &arg, finish_load_matrix, at);
}

void mma_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Location& at) {
  Mma arg{d, a, b};
  collective("mma.m16n8k16", ~0u, &arg, finish_mma_bf16, at);
}

void mma_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, const Location& at) {
  Mma arg{d, a, b};
  collective("mma.m16n8k8", ~0u, &arg, finish_mma_tf32, at);
}

}  // namespace cald::emulation
