#include "engine/sampler.h"

#include <cmath>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace vila {
namespace {

using testing_support::expect_error;

const std::vector<float> kLogits = {1.0F, 3.0F, 2.0F, -1.0F, 3.0F};

std::map<std::int32_t, int> draw(const SamplingParams& params, int n) {
  Sampler sampler(params);
  std::map<std::int32_t, int> counts;
  for (int step = 0; step < n; ++step) {
    std::vector<float> logits = kLogits;
    ++counts[sampler.pick(logits, {}, static_cast<std::uint64_t>(step)).id];
  }
  return counts;
}

TEST(Sampler, GreedyTakesTheFirstBest) {
  std::vector<float> logits = kLogits;
  const Choice choice = Sampler({}).pick(logits, {}, 0);
  EXPECT_EQ(choice.id, 1);
  double sum = 0;
  for (const float logit : kLogits) sum += std::exp(static_cast<double>(logit));
  EXPECT_NEAR(choice.logprob, 3.0 - std::log(sum), 1e-6);
}

TEST(Sampler, FrequenciesFollowTheDistribution) {
  constexpr int kDraws = 40000;
  const auto counts = draw({.temperature = 1.5F, .seed = 7}, kDraws);
  double total = 0;
  for (const float logit : kLogits) total += std::exp(static_cast<double>(logit) / 1.5);
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    const double p = std::exp(static_cast<double>(kLogits[i]) / 1.5) / total;
    const double bound = 5 * std::sqrt(p * (1 - p) / kDraws);  // five standard deviations
    EXPECT_NEAR(static_cast<double>(counts.at(static_cast<std::int32_t>(i))) / kDraws, p, bound) << i;
  }
}

TEST(Sampler, FiltersKeepWhatTheyPromise) {
  const auto ids = [](const SamplingParams& params) {
    std::vector<std::int32_t> kept;
    for (const auto& [id, count] : draw(params, 3000)) kept.push_back(id);
    return kept;
  };
  EXPECT_EQ(ids({.temperature = 1.0F, .top_k = 2}), (std::vector<std::int32_t>{1, 4}));
  EXPECT_EQ(ids({.temperature = 1.0F, .top_p = 0.5F}), (std::vector<std::int32_t>{1, 4}));
  EXPECT_EQ(ids({.temperature = 1.0F, .min_p = 0.3F}), (std::vector<std::int32_t>{1, 2, 4}));
}

TEST(Sampler, OneSeedGivesOneText) {
  EXPECT_EQ(draw({.temperature = 1.0F, .seed = 3}, 100), draw({.temperature = 1.0F, .seed = 3}, 100));
  EXPECT_NE(draw({.temperature = 1.0F, .seed = 3}, 100), draw({.temperature = 1.0F, .seed = 4}, 100));
}

TEST(Sampler, RepetitionPenaltyDiscouragesWhatWasSaid) {
  std::vector<float> logits = {2.0F, 1.5F, -0.5F};
  const std::vector<std::int32_t> history = {0, 0, 2};
  const Choice choice = Sampler({.repetition_penalty = 2.0F}).pick(logits, history, 0);
  EXPECT_EQ(choice.id, 1);
  EXPECT_FLOAT_EQ(logits[0], 1.0F);  // once, though seen twice
  EXPECT_FLOAT_EQ(logits[2], -1.0F);
}

TEST(Sampler, NamesParametersOutOfRange) {
  expect_error<InvalidArgument>([] { Sampler s({.max_new_tokens = 0}); }, {"max_new_tokens", "at least 1"});
  expect_error<InvalidArgument>([] { Sampler s({.temperature = -1.0F}); }, {"temperature", ">= 0", "-1"});
  expect_error<InvalidArgument>([] { Sampler s({.temperature = NAN}); }, {"temperature"});
  expect_error<InvalidArgument>([] { Sampler s({.top_p = 0.0F}); }, {"top_p", "(0, 1]"});
  expect_error<InvalidArgument>([] { Sampler s({.top_k = -2}); }, {"top_k"});
  expect_error<InvalidArgument>([] { Sampler s({.min_p = 1.5F}); }, {"min_p"});
  expect_error<InvalidArgument>([] { Sampler s({.repetition_penalty = 0.0F}); }, {"repetition_penalty"});
  expect_error<InvalidArgument>([] { Sampler s({.temperature = 1.0F, .num_beams = 2}); }, {"num_beams"});
}

}  // namespace
}  // namespace vila
