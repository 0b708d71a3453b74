// A small deterministic generator (SplitMix64, Steele et al., OOPSLA 2014): the same numbers on every platform, which
// the distributions of <random> do not promise.
#pragma once

#include <cstdint>
#include <vector>

namespace vila::testing_support {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  /// 64 uniform bits.
  std::uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /// A whole number in low..high, both included.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }

  /// A float in [low, high).
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits() >> 40) * 0x1p-24F; }

  /// About normal with mean 0 and standard deviation 1 (sum of twelve uniform numbers), within +-6.
  float normal() {
    float sum = -6.0F;
    for (int i = 0; i < 12; ++i) sum += uniform(0.0F, 1.0F);
    return sum;
  }

  std::vector<float> uniforms(std::int64_t n, float low, float high) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = uniform(low, high);
    return values;
  }

  std::vector<float> normals(std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = normal();
    return values;
  }

 private:
  std::uint64_t state_;
};

}  // namespace vila::testing_support
