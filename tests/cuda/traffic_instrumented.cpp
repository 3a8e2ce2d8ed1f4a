// Bytes and bank conflicts of the attention and projection kernels, which the instrumented build counts.
#include "kernels/cuda/emulation/source_line.h"
#include "kernels/cuda/emulation/traffic.h"
#include "tests/cuda/attention_run.h"
#include "tests/cuda/low_rank_run.h"

namespace cald::test {
namespace {

struct Bytes {
  const char* kernel;
  std::int64_t loaded, stored;  ///< what the formula beside the kernel allows
};

/// The first kernel whose name holds `name`.
emulation::KernelTraffic traffic_of(const std::string& name) {
  for (const emulation::KernelTraffic& t : emulation::kernel_traffic())
    if (emulation::function_name(t.kernel).find(name) != std::string::npos) return t;
  ADD_FAILURE() << "no kernel " << name << " was launched";
  return {};
}

void expect_traffic(const Bytes& allowed) {
  const emulation::KernelTraffic t = traffic_of(allowed.kernel);
  EXPECT_LE(static_cast<double>(t.loaded), 1.1 * static_cast<double>(allowed.loaded)) << allowed.kernel;
  EXPECT_LE(static_cast<double>(t.stored), 1.1 * static_cast<double>(allowed.stored)) << allowed.kernel;
  EXPECT_LE(t.worst_conflict, 1u) << allowed.kernel << ": " << t.bank_conflicts << " conflicts in " << t.shared_requests
                                  << " requests";
}

std::int64_t tiles(std::int64_t n, std::int64_t tile) { return (n + tile - 1) / tile; }
std::int64_t part(double share, std::int64_t n) { return static_cast<std::int64_t>(share * static_cast<double>(n)); }

/// Keys of which the second third counts.
AttentionCase padded() {
  AttentionCase c{1, 1, 64, 192, 32, std::vector<std::int32_t>(192)};
  std::fill(c.mask.begin() + 64, c.mask.begin() + 128, 1);
  return c;
}
/// Two tiles of queries and of keys: one pair of tiles has nothing to see.
const AttentionCase kCausal{1, 1, 128, 128, 32, {}, true};

/// `walked`: the share of the pairs of a held tile and a column that have to be walked over.
void check_f32(const AttentionCase& c, std::int64_t held, double walked = 1) {
  SCOPED_TRACE("head size " + std::to_string(c.head_size));
  emulation::clear_kernel_traffic();
  run_attention(c, Operands(c));
  const std::int64_t n = 4 * c.batch * c.heads, sq = c.queries, sk = c.keys, d = c.head_size;
  const auto keys = [&](std::int64_t tile) {
    return tiles(sq, tile) * sk * 2 + part(walked, tiles(sq, tile) * sk * 2 * d);
  };
  expect_traffic({"attention_forward_f32", n * (sq * d + keys(64)), n * sq * (d + 1)});
  expect_traffic({"attention_sums_f32", n * (2 * sq * d + keys(held) + 16 * sq), n * sq * 2});
  const std::string size = std::to_string(d);
  expect_traffic(
      {("attention_backward_f32<" + size + ", false>").c_str(), n * (2 * sq * d + keys(held) + 48 * sq), n * sq * d});
  expect_traffic({("attention_backward_f32<" + size + ", true>").c_str(),
                  n * (2 * sk * d + part(walked, tiles(sk, held) * sq * (2 * d + 3)) + 17 * sk), n * 2 * sk * d});
}

TEST(CudaTraffic, AttentionF32) {
  for (const std::int64_t d : {32, 64, 80, 96, 128})
    check_f32({1, 1, 128, 128, d, std::vector<std::int32_t>(128, 1)}, 64);
  check_f32({1, 1, 64, 64, 256, std::vector<std::int32_t>(64, 1)}, 32);
}

void check_bf16(const AttentionCase& c, double walked = 1) {
  SCOPED_TRACE("head size " + std::to_string(c.head_size));
  emulation::clear_kernel_traffic();
  run_attention<__nv_bfloat16>(c, Operands(c));
  const std::int64_t n = c.batch * c.heads, sq = c.queries, sk = c.keys, d = c.head_size;
  const std::int64_t keys = tiles(sq, 64) * sk * 8 + part(walked, tiles(sq, 64) * sk * 4 * d);
  const std::int64_t dq = n * (4 * sq * d + keys + 32 * sq);
  const std::int64_t dk = n * (4 * sk * d + part(walked, tiles(sk, 64) * sq * (4 * d + 8)) + 20 * sk);
  expect_traffic({"attention_forward_bf16", n * (2 * sq * d + keys), n * sq * (2 * d + 4)});
  expect_traffic({"attention_delta_bf16", n * 4 * sq * d, n * sq * 4});
  const std::string name = "attention_backward_bf16<" + std::to_string(d) + ", (cald::cuda::Gradients)";
  expect_traffic({(name + "0").c_str(), dq, n * sq * d * 2});
  if (d <= 128) expect_traffic({(name + "1").c_str(), dk, n * sk * d * 4});
  if (d > 128) expect_traffic({(name + "2").c_str(), dk, n * sk * d * 2});
  if (d > 128) expect_traffic({(name + "3").c_str(), dk, n * sk * d * 2});
}

TEST(CudaTraffic, AttentionBf16) {
  for (const std::int64_t d : {32, 64, 80, 96, 128, 256})
    check_bf16({1, 1, 128, 128, d, std::vector<std::int32_t>(128, 1)});
}

TEST(CudaTraffic, AttentionWalksOnlyOverKeysThatCountAndAreSeen) {
  check_f32(padded(), 64, 1.0 / 3);
  check_f32(kCausal, 64, 3.0 / 4);
  check_bf16(padded(), 1.0 / 3);
  check_bf16(kCausal, 3.0 / 4);
}

TEST(CudaTraffic, LowRankF32) {
  emulation::clear_kernel_traffic();
  const LowRankCase c = padded_case(128, 128, 96, {0, 0});
  run_low_rank(c, LowRankInputs(c));
  const std::int64_t n = 4 * c.batch, s = c.tokens, d = c.width, k = c.slots, p = c.positions;
  expect_traffic({"low_rank_forward_f32",
                  n * (tiles(k, 64) * s * d + tiles(d, 64) * s * k + tiles(k, 64) * tiles(d, 64) * s), n * k * d});
  expect_traffic({"low_rank_backward_x_f32",
                  n * (tiles(d, 64) * s * k + tiles(s, 64) * k * d + tiles(s, 64) * tiles(d, 64) * 64), n * s * d});
  expect_traffic(
      {"low_rank_backward_e_f32", n * (tiles(k, 32) * p * d + tiles(p, 32) * k * d + tiles(k, 32) * p), 4 * p * k});
}

}  // namespace
}  // namespace cald::test
