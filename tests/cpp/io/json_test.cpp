#include "io/json.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;

TEST(Json, ReadsValuesWithTheirPaths) {
  const Json json = Json::parse(R"({"a": {"b": [1, 2.5, "x", true, null]}})", "file.json");
  const Json b = json.at("a").at("b");
  EXPECT_EQ(b.size(), 5U);
  EXPECT_EQ(b.at(0).integer(), 1);
  EXPECT_DOUBLE_EQ(b.at(1).number(), 2.5);
  EXPECT_EQ(b.at(2).text(), "x");
  EXPECT_TRUE(b.at(3).boolean());
  EXPECT_EQ(b.at(0).path(), "file.json.a.b[0]");
  EXPECT_FALSE(json.has("c"));
}

TEST(Json, NamesWhatWasExpectedAndFound) {
  const Json json = Json::parse(R"({"a": "text", "n": 70000000000000000000, "k": 5})", "f");
  expect_error<CheckpointError>([&] { (void)json.at("a").integer(); }, {"f.a", "expected an integer", "\"text\""});
  expect_error<CheckpointError>([&] { (void)json.at("n").integer(); }, {"f.n", "expected an integer"});
  expect_error<CheckpointError>([&] { (void)json.at("k").integer(6, 9); }, {"6..9", "got 5"});
  expect_error<CheckpointError>([&] { (void)json.at("missing"); }, {"\"missing\"", "got none"});
  expect_error<CheckpointError>([&] { (void)Json::parse("{\"a\": ", "f"); }, {"valid JSON"});
}

TEST(Json, RefusesDeepNesting) {
  const std::string deep(100'000, '[');
  expect_error<CheckpointError>([&] { (void)Json::parse(deep, "f"); }, {"nested"});
}

TEST(JsonWriter, WritesWhatTheReaderReads) {
  const std::string text =
      JsonWriter().set("a", 1).set("b", "x\"\n").set("c", true).set("d", 0.5).set("e", JsonWriter().set("f", 2)).dump();
  const Json json = Json::parse(text, "t");
  EXPECT_EQ(json.at("b").text(), "x\"\n");
  EXPECT_EQ(json.at("e").at("f").integer(), 2);
  EXPECT_DOUBLE_EQ(json.at("d").number(), 0.5);
}

}  // namespace
}  // namespace vila
