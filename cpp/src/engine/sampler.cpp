#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace vila {
namespace {

void check(bool ok, const char* name, const char* expected, double got) {
  if (ok) return;
  throw InvalidArgument("[sampling] " + std::string(name) + ": expected " + expected + ", got " + std::to_string(got));
}

// Divides positive and multiplies negative logits of tokens seen before (Keskar et al. 2019), each token once.
void penalise(std::span<float> logits, std::span<const std::int32_t> history, float penalty) {
  std::vector<std::int32_t> seen(history.begin(), history.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const std::int32_t id : seen) {
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - highest));
  return static_cast<double>(highest) + std::log(sum);
}

double uniform_at(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& p) : params_(p) {
  check(p.max_new_tokens >= 1, "max_new_tokens", "at least 1", p.max_new_tokens);
  check(p.temperature >= 0 && std::isfinite(p.temperature), "temperature", "a finite number >= 0", p.temperature);
  check(p.top_p > 0 && p.top_p <= 1, "top_p", "a number in (0, 1]", p.top_p);
  check(p.top_k >= 0, "top_k", "0 (off) or more", p.top_k);
  check(p.min_p >= 0 && p.min_p <= 1, "min_p", "a number in [0, 1]", p.min_p);
  check(p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty), "repetition_penalty", "a finite number > 0",
        p.repetition_penalty);
  check(p.num_beams >= 1 && p.num_beams <= 64, "num_beams", "an integer in 1..64", p.num_beams);
  check(p.prompt_lookup >= 0 && p.prompt_lookup <= 15, "prompt_lookup", "an integer in 0..15", p.prompt_lookup);
  if (p.num_beams > 1) {
    check(p.prompt_lookup == 0, "prompt_lookup", "0 with num_beams > 1", p.prompt_lookup);
    check(p.temperature == 0, "temperature", "0 with num_beams > 1", p.temperature);
    check(p.repetition_penalty == 1, "repetition_penalty", "1 with num_beams > 1", p.repetition_penalty);
  }
}

Choice Sampler::pick(std::span<float> logits, std::span<const std::int32_t> history, std::uint64_t step) {
  const double normaliser = log_sum_exp(logits);
  const auto choice = [&](std::int32_t id, float raw) {
    return Choice{id, static_cast<float>(static_cast<double>(raw) - normaliser)};
  };
  const bool penalty = params_.repetition_penalty != 1.0F;
  std::vector<float> raw;
  if (penalty) {
    raw.assign(logits.begin(), logits.end());
    penalise(logits, history, params_.repetition_penalty);
  }
  const auto raw_of = [&](std::int32_t id) {
    return (penalty ? std::span<const float>(raw) : logits)[static_cast<std::size_t>(id)];
  };
  if (params_.temperature == 0) {
    const auto best = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    return choice(best, raw_of(best));
  }

  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    candidates_.emplace_back(logits[i] / params_.temperature, static_cast<std::int32_t>(i));
  }
  const auto better = [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  };
  if (params_.top_k > 0 && static_cast<std::size_t>(params_.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params_.top_k - 1, candidates_.end(), better);
    candidates_.resize(static_cast<std::size_t>(params_.top_k));
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
  const float highest = candidates_.front().first;
  double total = 0;
  for (auto& [value, id] : candidates_) {
    value = std::exp(value - highest);  // probability up to a factor, best = 1
    total += static_cast<double>(value);
  }
  if (params_.top_p < 1) {  // the smallest set whose mass reaches top_p
    double mass = 0;
    std::size_t kept = 0;
    while (kept < candidates_.size() && mass < static_cast<double>(params_.top_p) * total) {
      mass += static_cast<double>(candidates_[kept++].first);
    }
    candidates_.resize(std::max<std::size_t>(kept, 1));
  }
  if (params_.min_p > 0) {
    while (candidates_.size() > 1 && candidates_.back().first < params_.min_p) candidates_.pop_back();
  }
  total = 0;
  for (const auto& [value, id] : candidates_) total += static_cast<double>(value);
  double left = uniform_at(params_.seed, step) * total;
  for (const auto& [value, id] : candidates_) {
    left -= static_cast<double>(value);
    if (left < 0) return choice(id, raw_of(id));
  }
  return choice(candidates_.back().second, raw_of(candidates_.back().second));
}

}  // namespace vila
