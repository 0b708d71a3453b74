#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "vila/error.h"

namespace vila {
namespace {

TEST(StopMatcher, EndsBeforeTheFirstStopInWhateverPiecesItComes) {
  const std::string text = "one two </s> three";
  for (std::size_t piece = 1; piece <= text.size(); ++piece) {
    StopMatcher matcher({"</s>", "three"});
    std::string shown;
    for (std::size_t at = 0; at < text.size(); at += piece) shown += matcher.push(text.substr(at, piece));
    EXPECT_TRUE(matcher.stopped());
    EXPECT_EQ(shown + matcher.flush(), "one two ");
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"abcd", "bx"});
  EXPECT_EQ(matcher.push("zzab"), "zz");
  EXPECT_EQ(matcher.push("c"), "");
  EXPECT_EQ(matcher.push("e"), "abce");
  EXPECT_EQ(matcher.push("ab"), "");
  EXPECT_EQ(matcher.flush(), "ab");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, RefusesEmptyStops) {
  testing_support::expect_error<InvalidArgument>([] { StopMatcher matcher({"a", ""}); }, {"non-empty"});
}

}  // namespace
}  // namespace vila
