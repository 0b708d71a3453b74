#include "engine/prompt_lookup.h"

#include <vector>

#include <gtest/gtest.h>

namespace vila {
namespace {

using Ids = std::vector<std::int32_t>;

Ids found(const Ids& ids, std::size_t longest = 4) {
  const auto span = look_up(ids, longest);
  return {span.begin(), span.end()};
}

TEST(PromptLookup, GivesWhatFollowedTheSameThreeIds) {
  EXPECT_EQ(found({1, 2, 3, 4, 5, 6, 1, 2, 3}), (Ids{4, 5, 6, 1}));
  EXPECT_EQ(found({1, 2, 3, 4, 5, 6, 1, 2, 3}, 2), (Ids{4, 5}));
}

TEST(PromptLookup, PrefersTheLatestOccurrenceAndTheLongerMatch) {
  EXPECT_EQ(found({1, 2, 3, 7, 1, 2, 3, 8, 9, 1, 2, 3}), (Ids{8, 9, 1, 2}));
  EXPECT_EQ(found({1, 2, 3, 7, 5, 2, 3, 8, 9, 1, 2, 3}), (Ids{7, 5, 2, 3}));  // 2 3 came later, 1 2 3 is longer
}

TEST(PromptLookup, FallsBackToTwoIds) { EXPECT_EQ(found({2, 3, 8, 9, 1, 2, 3}), (Ids{8, 9, 1, 2})); }

TEST(PromptLookup, ARunOfOneIdGoesOn) { EXPECT_EQ(found({5, 5, 5, 5}), (Ids{5})); }

TEST(PromptLookup, GivesNothingWhereNothingRepeats) {
  EXPECT_EQ(found({1, 2, 3, 4}), Ids{});
  EXPECT_EQ(found({1, 2}), Ids{});
  EXPECT_EQ(found({}), Ids{});
  EXPECT_EQ(found({1, 2, 3, 1, 2, 3}, 0), Ids{});
}

}  // namespace
}  // namespace vila
