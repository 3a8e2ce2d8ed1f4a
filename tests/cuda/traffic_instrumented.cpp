// Bytes and bank conflicts of every CUDA kernel, which the instrumented build counts, against its formula.
#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "kernels/cuda/emulation/source_line.h"
#include "kernels/cuda/emulation/traffic.h"
#include "tests/cuda/attention_run.h"
#include "tests/cuda/table/bench/kernel_kit.h"

namespace cald::test {
namespace {

/// Asking costs a process.
const std::string& name_of_kernel(const void* kernel) {
  static std::map<const void*, std::string> known;
  std::string& name = known[kernel];
  if (name.empty()) name = emulation::function_name(kernel);
  return name;
}

/// The kernels that ran since the last clear are those of `tiling`, with no more bytes than a tenth above it and no
/// less than half (formulas that say "at most"); no more than two lanes share a bank.
void expect_traffic(const Tiling& tiling) {
  std::vector<emulation::KernelTraffic> sums(tiling.size());
  for (const emulation::KernelTraffic& t : emulation::kernel_traffic()) {
    const std::string& name = name_of_kernel(t.kernel);
    EXPECT_LE(t.worst_conflict, 1u) << name << ": " << t.bank_conflicts << " conflicts in " << t.shared_requests
                                    << " requests";
    const auto found = std::find_if(tiling.begin(), tiling.end(),
                                    [&](const KernelBytes& b) { return name.find(b.kernel) != std::string::npos; });
    if (found == tiling.end()) {
      ADD_FAILURE() << name << " has no formula";
      continue;
    }
    emulation::KernelTraffic& sum = sums[static_cast<std::size_t>(found - tiling.begin())];
    sum.launches += t.launches, sum.loaded += t.loaded, sum.stored += t.stored;
  }
  for (std::size_t i = 0; i < tiling.size(); ++i) {
    const KernelBytes& b = tiling[i];
    EXPECT_GT(sums[i].launches, 0u) << b.kernel << " was not launched";
    EXPECT_LE(static_cast<double>(sums[i].loaded), 1.1 * static_cast<double>(b.loaded)) << b.kernel;
    EXPECT_LE(static_cast<double>(sums[i].stored), 1.1 * static_cast<double>(b.stored)) << b.kernel;
    EXPECT_GE(static_cast<double>(sums[i].loaded), 0.5 * static_cast<double>(b.loaded)) << b.kernel;
    EXPECT_GE(static_cast<double>(sums[i].stored), 0.5 * static_cast<double>(b.stored)) << b.kernel;
  }
}

template <class T>
void check_attention(const AttentionCase& c) {
  SCOPED_TRACE("head size " + std::to_string(c.head_size));
  emulation::clear_kernel_traffic();
  run_attention<T>(c, Operands(c));
  AttentionForward f{};
  f.heads = static_cast<int>(c.heads);
  f.q.dtype = DTypeOf<T>::value;
  f.q.shape = Shape{c.batch, c.queries, c.width()}, f.k.shape = Shape{c.batch, c.keys, c.width()};
  AttentionBackward b{};
  b.heads = f.heads, b.q = f.q, b.k = f.k;
  Tiling tiling = tiling_of(f);
  for (const KernelBytes& k : tiling_of(b)) tiling.push_back(k);
  expect_traffic(tiling);
}

TEST(CudaTraffic, AttentionF32) {
  for (const std::int64_t d : {32, 64, 80, 96, 128})
    check_attention<float>({1, 1, 128, 128, d, std::vector<std::int32_t>(128, 1)});
  check_attention<float>({1, 1, 64, 64, 256, std::vector<std::int32_t>(64, 1)});
}

TEST(CudaTraffic, AttentionBf16) {
  for (const std::int64_t d : {32, 64, 80, 96, 128, 256})
    check_attention<__nv_bfloat16>({1, 1, 128, 128, d, std::vector<std::int32_t>(128, 1)});
}

/// Keys of which the second third counts.
AttentionCase padded() {
  AttentionCase c{1, 1, 64, 192, 32, std::vector<std::int32_t>(192)};
  std::fill(c.mask.begin() + 64, c.mask.begin() + 128, 1);
  return c;
}
/// Two tiles of queries and of keys: one pair of tiles has nothing to see.
const AttentionCase kCausal{1, 1, 128, 128, 32, {}, true};

std::int64_t part(double share, std::int64_t n) { return static_cast<std::int64_t>(share * static_cast<double>(n)); }

/// `walked`: the share of the pairs of a held tile of 64 rows and a column that has to be walked over.
void check_walk_f32(const AttentionCase& c, double walked) {
  emulation::clear_kernel_traffic();
  run_attention(c, Operands(c));
  const std::int64_t n = 4 * c.batch * c.heads, sq = c.queries, sk = c.keys, d = c.head_size;
  const std::int64_t keys = tiles(sq, 64) * sk * 2 + part(walked, tiles(sq, 64) * sk * 2 * d);
  expect_traffic(
      {{"attention_forward_f32", n * (sq * d + keys), n * sq * (d + 1)},
       {"attention_sums_f32", n * (2 * sq * d + keys + 16 * sq), n * sq * 2},
       {", false>", n * (2 * sq * d + keys + 48 * sq), n * sq * d},
       {", true>", n * (2 * sk * d + part(walked, tiles(sk, 64) * sq * (2 * d + 3)) + 17 * sk), n * 2 * sk * d}});
}

void check_walk_bf16(const AttentionCase& c, double walked) {
  emulation::clear_kernel_traffic();
  run_attention<__nv_bfloat16>(c, Operands(c));
  const std::int64_t n = c.batch * c.heads, sq = c.queries, sk = c.keys, d = c.head_size;
  const std::int64_t keys = tiles(sq, 64) * sk * 8 + part(walked, tiles(sq, 64) * sk * 4 * d);
  const std::int64_t dk = n * (4 * sk * d + part(walked, tiles(sk, 64) * sq * (4 * d + 8)) + 20 * sk);
  expect_traffic({{"attention_forward_bf16", n * (2 * sq * d + keys), n * sq * (2 * d + 4)},
                  {"attention_delta_bf16", n * 4 * sq * d, n * sq * 4},
                  {"(cald::cuda::Gradients)0", n * (4 * sq * d + keys + 32 * sq), n * sq * d * 2},
                  {"(cald::cuda::Gradients)1", dk, n * sk * d * 4}});
}

TEST(CudaTraffic, AttentionWalksOnlyOverKeysThatCountAndAreSeen) {
  check_walk_f32(padded(), 1.0 / 3);
  check_walk_f32(kCausal, 3.0 / 4);
  check_walk_bf16(padded(), 1.0 / 3);
  check_walk_bf16(kCausal, 3.0 / 4);
}

/// What no case of the benchmarks does.
void more_launches(KernelKit& k, const StepShape& s) {
  const Shape hidden{s.batch, s.seq, s.hidden};
  k.time(
      Gemm{k.factors({s.seq, 0}), k.factors({0, s.hidden}), k.values({s.hidden}), {k.values({s.seq, s.hidden}), true}});
  k.time(ColumnSum{k.factors({s.seq, s.hidden}), {k.values({s.hidden}), true}});
  k.time(DropoutApply{k.values(hidden), k.counted({s.batch}), {k.values(hidden), true}, Dropout{0.1f, {1, 2, 3}}});
  k.time(ActivationBackward{k.factors(hidden), k.factors(hidden), {k.factors(hidden), true}, Activation::gelu});
  k.time(SquaredErrorForward{k.values(hidden), k.values(hidden), k.constant({s.batch, s.seq}, 1), k.values({1}), true});
  k.time(SquaredErrorBackward{k.values(hidden), k.values(hidden), {}, k.values({1}), {k.values(hidden), false}, true});
  const TensorRef rows = k.constant({s.vocab}, -1), sums = k.values({s.batch * s.seq, s.hidden});
  k.time(EmbeddingBackward{k.drawn({s.batch, s.seq}, s.vocab), k.values(hidden), {sums, false}, -1, rows});
  const TensorRef value = k.values({s.vocab, s.hidden});
  const std::vector<AdamWSlot> slots{
      {value, sums, k.factors(value.shape), k.factors(value.shape), 1e-5f, 0.0f, rows, k.constant({s.vocab}, 0)}};
  k.time(AdamW{&slots, 3, 0.9, 0.999, 1e-8f, 1.0f, k.values({1})});
}

/// tests/cuda/registers.tsv names all kernels that there are.
std::set<std::string> kernels_of_the_backend() {
  std::ifstream file(CALD_SOURCE_DIR "/tests/cuda/registers.tsv");
  std::set<std::string> names;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) names.insert(line.substr(0, line.find_first_of("<\t")));
  return names;
}

TEST(CudaTraffic, EveryKernel) {
  std::set<std::string> unseen = kernels_of_the_backend();
  EXPECT_GT(unseen.size(), 20u);
  std::vector<KernelCase> cases = kernel_cases();
  cases.push_back({"more", more_launches});
  const StepShape shape{"small", 2, 128, 128, 2, 256, 64, 300};
  for (const DType compute : {DType::f32, DType::bf16})
    for (const KernelCase& c : cases) {
      if (c.name.rfind("gemm/", 0) == 0) continue;  // cuBLASLt's
      SCOPED_TRACE(c.name + " in " + name_of(compute));
      Exec exec;
      exec.device = Device::cuda, exec.compute = compute;
      KernelKit kit(exec, [&](const KernelLaunch& launch) {
        SCOPED_TRACE(launch.name);
        cudaDeviceSynchronize();
        emulation::clear_kernel_traffic();
        launch.run();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        expect_traffic(launch.tiling);
        for (const emulation::KernelTraffic& t : emulation::kernel_traffic())
          for (auto name = unseen.begin(); name != unseen.end();)
            name = name_of_kernel(t.kernel).find(*name) != std::string::npos ? unseen.erase(name) : std::next(name);
      });
      c.run(kit, shape);
    }
  for (const std::string& name : unseen) ADD_FAILURE() << name << " was not launched";
}

}  // namespace
}  // namespace cald::test
