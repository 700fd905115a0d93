#pragma once
// Seeded random numbers that are the same on every machine, which those of <random>'s distributions are not.
#include <array>
#include <cmath>
#include <cstdint>

namespace drydock::core {

// Scatters the bits of `x`; one to one. The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014; Vigna's
// constants).
constexpr uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// xoshiro256++ (Blackman and Vigna, ACM TOMS 2021; the authors put it in the public domain), seeded by splitmix64.
// Streams of one seed start at unrelated states: draws for one purpose leave those for another as they are.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) {
    uint64_t x = mix(mix(seed + kGolden) ^ (stream * 0xD1342543DE82EF95u));
    for (uint64_t& word : state_) word = mix(x += kGolden);
  }

  uint64_t next() {
    auto& s = state_;
    const uint64_t result = rotate(s[0] + s[3], 23) + s[0];
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
  }

  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)

  // Uniform over low..high, both included; their distance must be below 2^53, or the upper ones come too rarely.
  int64_t integer(int64_t low, int64_t high) {
    const double values = static_cast<double>(high) - static_cast<double>(low) + 1;
    const int64_t drawn = low + static_cast<int64_t>(uniform() * values);
    return drawn < high ? drawn : high;
  }

  double exponential(double mean) { return -mean * std::log1p(-uniform()); }

  // Mean 0, variance 1. Marsaglia's polar method, 1964; the second of each pair is dropped to keep no state.
  double normal() {
    for (;;) {
      const double u = 2 * uniform() - 1, v = 2 * uniform() - 1;
      const double square = u * u + v * v;
      if (square > 0 && square < 1) return u * std::sqrt(-2 * std::log(square) / square);
    }
  }

  // Variance mean^2 / shape; shape > 0. Marsaglia and Tsang, ACM TOMS 2000, with their step for shapes below 1.
  double gamma(double shape, double mean) {
    if (shape < 1) return gamma(shape + 1, mean * (shape + 1) / shape) * std::pow(1 - uniform(), 1 / shape);
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), cube_root = 1 + c * x;
      if (cube_root <= 0) continue;
      const double v = cube_root * cube_root * cube_root;
      if (std::log1p(-uniform()) < x * x / 2 + d - d * v + d * std::log(v)) return d * v * mean / shape;
    }
  }

  // `cv`: standard deviation / mean. ln X is normal with variance ln(1 + cv^2) and mean ln(mean) - variance / 2.
  double lognormal(double mean, double cv) {
    const double variance = std::log1p(cv * cv);
    return mean * std::exp(std::sqrt(variance) * normal() - variance / 2);
  }

 private:
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
  static constexpr uint64_t rotate(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

  std::array<uint64_t, 4> state_;
};

}  // namespace drydock::core
