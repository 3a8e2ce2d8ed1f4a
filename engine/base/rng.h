// Philox4x32-10, a counter-based generator (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

#if defined(__CUDACC__)
#define CALD_HOST_DEVICE __host__ __device__
#else
#define CALD_HOST_DEVICE
#endif

namespace cald {

struct PhiloxWords {
  std::uint32_t w[4];
};

/// kRounds rounds over the 128-bit counter under the 64-bit key. Seven are the fewest that pass all of BigCrush, ten
/// the authors' choice.
template <int kRounds = 10>
CALD_HOST_DEVICE inline PhiloxWords philox(PhiloxWords c, std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c.w[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c.w[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.w[1] ^ k0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.w[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// Uniform in (0, 1], from the upper 24 bits so that f32 holds it exactly.
CALD_HOST_DEVICE inline float uniform_from(std::uint32_t bits) {
  return static_cast<float>((bits >> 8) + 1) * (1.0f / 16777216.0f);
}

/// Identifies one random decision by what it belongs to, never by a flat index: micro-batching, recompute and length
/// bucketing change where an element lies in memory and must not change its mask.
struct RngKey {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;  ///< optimizer step
  std::uint32_t op = 0;    ///< number of the op within the model; teacher and student count apart
};

/// Dropout at rate p, rounded to a multiple of 2^-16: element (sample, position, feature) is kept if its 16 bits are
/// below the threshold, and multiplied by the scale, which makes up for the rest without a bias.
struct Dropout {
  float p = 0.0f;
  RngKey key;
  bool active() const { return p > 0.0f; }
  /// 1 to 65536.
  std::uint32_t threshold() const {
    const auto kept = static_cast<std::uint32_t>((1.0 - static_cast<double>(p)) * 65536.0 + 0.5);
    return kept > 0 ? kept : 1;
  }
  float scale() const { return 65536.0f / static_cast<float>(threshold()); }
};

/// Rounds for dropout, whose draws are a visible share of a step.
inline constexpr int kDropoutRounds = 7;

/// 16 random bits for each of four features. The index may be no constant: it moves nothing into memory.
struct DropoutBits {
  std::uint32_t w[2];
  CALD_HOST_DEVICE std::uint32_t operator[](int i) const { return (i & 2 ? w[1] : w[0]) >> (i & 1) * 16 & 0xFFFFu; }
};

/// What decides features 4j .. 4j+3 of (sample, position), j being feature_block; sample is the example's number in the
/// data set's order within the step, position counts from the row's start. Eight features share a draw.
CALD_HOST_DEVICE inline DropoutBits dropout_bits(const RngKey& k, std::uint32_t sample, std::uint32_t position,
                                                 std::uint32_t feature_block) {
  const PhiloxWords drawn = philox<kDropoutRounds>({{feature_block / 2, position, sample, k.op}},
                                                   static_cast<std::uint32_t>(k.seed) ^ (k.step * 0x9E3779B9u),
                                                   static_cast<std::uint32_t>(k.seed >> 32) ^ k.step);
  return feature_block % 2 ? DropoutBits{{drawn.w[2], drawn.w[3]}} : DropoutBits{{drawn.w[0], drawn.w[1]}};
}

/// Each bit of the result depends on all of h's: the last step of MurmurHash3.
CALD_HOST_DEVICE inline std::uint32_t mix(std::uint32_t h) {
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  return h ^ (h >> 16);
}

/// Noise for the stochastic rounding of element i, twice 16 bits: what is cut off a number is added to the rest with a
/// probability that is its size, so that many small changes are not all lost. A generator of far more quality would
/// take longer than the update whose results it rounds.
CALD_HOST_DEVICE inline std::uint32_t rounding_noise(std::uint32_t key, std::uint32_t i) {
  return mix(key ^ (i * 0x9E3779B9u));
}

/// A stream number from a name (FNV-1a), so that what is drawn for a parameter does not depend on which others exist.
inline std::uint64_t stream_of(const std::string& name) {
  std::uint64_t h = 14695981039346656037ull;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return h;
}

/// A stream of host-side draws for initialisation and shuffling; `next()` values depend on (seed, stream) alone.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}

  std::uint32_t next() {
    if (used_ == 4) {
      const auto n = counter_++;
      block_ = philox({{static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(n >> 32),
                        static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)}},
                      static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32));
      used_ = 0;
    }
    return block_.w[used_++];
  }
  /// Uniform integer in [0, n), without modulo bias; n > 0.
  std::uint32_t below(std::uint32_t n) {
    const std::uint32_t limit = 0xFFFFFFFFu - (0xFFFFFFFFu % n + 1) % n;
    std::uint32_t x;
    do x = next();
    while (x > limit);
    return x % n;
  }
  /// Standard normal by Box and Muller's method.
  float normal() {
    const double u = uniform_from(next()), v = uniform_from(next());
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }

 private:
  std::uint64_t seed_, stream_, counter_ = 0;
  PhiloxWords block_{};
  int used_ = 4;
};

}  // namespace cald
