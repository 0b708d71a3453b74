// From logits to a token: a pure function of logits, history, parameters, seed and step, so that a seed gives the same
// text on every platform.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vila/engine.h"

namespace vila {

struct Choice {
  std::int32_t id = 0;
  float logprob = 0;  ///< under softmax(logits) before any penalty or temperature
};

/// Order of steps: repetition penalty, then greedy; or temperature, top-k, top-p, min-p, draw.
class Sampler {
 public:
  /// Throws InvalidArgument for parameters out of range.
  explicit Sampler(const SamplingParams& params);

  /// `logits` [V] is changed. `history`: ids of prompt and answer so far (pictures left out). `step` counts from 0.
  Choice pick(std::span<float> logits, std::span<const std::int32_t> history, std::uint64_t step);

 private:
  SamplingParams params_;
  std::vector<std::pair<float, std::int32_t>> candidates_;  // kept to allocate once
};

/// log sum exp of logits, in double.
double log_sum_exp(std::span<const float> logits);

/// A uniform number in [0, 1) from a seed and a counter (SplitMix64, Steele et al. 2014).
double uniform_at(std::uint64_t seed, std::uint64_t counter);

}  // namespace vila
