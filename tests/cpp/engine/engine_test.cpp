#include "vila/engine.h"

#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;
using testing_support::TempDir;
using testing_support::TinyModel;

Image picture(std::int32_t width, std::int32_t height, std::uint32_t seed) {
  std::mt19937 random(seed);
  Image image;
  image.width = width;
  image.height = height;
  image.rgb.resize(static_cast<std::size_t>(3 * width * height));
  for (std::uint8_t& value : image.rgb) value = static_cast<std::uint8_t>(random());
  return image;
}

std::vector<std::int32_t> run(Session& session, const Prompt& prompt, SamplingParams params = {}) {
  params.ignore_eos = true;
  if (params.max_new_tokens == 512) params.max_new_tokens = 12;
  Generation generation = session.start(prompt, params);
  std::vector<std::int32_t> ids;
  while (const auto token = generation.next()) ids.push_back(token->id);
  return ids;
}

Prompt ask(const Image& image, const std::string& text = "<image>\nwhat is this?") {
  Prompt prompt;
  prompt.messages = {{"user", text}};
  prompt.images = {image.view()};
  return prompt;
}

struct Variant {
  const char* name;
  TinyModel model;
};

constexpr KvCacheType kCacheTypes[] = {KvCacheType::f16, KvCacheType::int8};

class EngineVariants : public testing::TestWithParam<Variant> {};

// Everything that leaves the engine has the same bits whatever the instruction set and the number of threads.
TEST_P(EngineVariants, SameBitsOnEveryIsaAndThreadCount) {
  const TempDir dir;
  testing_support::write_tiny_model(dir.path(), GetParam().model);
  const Image image = picture(70, 41, 5);
  for (const KvCacheType cache : kCacheTypes) {
    std::vector<float> features, rows, logits;
    std::vector<std::int32_t> ids;
    for (const KernelInfo& kernel : kernel_list()) {
      if (!kernel.usable) continue;
      for (const int threads : {1, 2, 5}) {
        const Engine engine = Engine::load(dir.path(), {.threads = threads, .isa = kernel.name, .kv_cache = cache});
        Session session = engine.new_session();
        const std::vector<float> f = engine.vision_features(image.view()).data;
        const std::vector<float> r = engine.encode_image(image.view()).data;
        const std::vector<float> l = engine.logits(ask(image)).data;
        const std::vector<std::int32_t> i = run(session, ask(image));
        if (features.empty()) {
          std::tie(features, rows, logits, ids) = std::tie(f, r, l, i);
          for (const float value : l) ASSERT_TRUE(std::isfinite(value));
          continue;
        }
        ASSERT_EQ(std::memcmp(f.data(), features.data(), f.size() * 4), 0) << kernel.name << " " << threads;
        ASSERT_EQ(std::memcmp(r.data(), rows.data(), r.size() * 4), 0) << kernel.name << " " << threads;
        ASSERT_EQ(std::memcmp(l.data(), logits.data(), l.size() * 4), 0) << kernel.name << " " << threads;
        ASSERT_EQ(i, ids) << kernel.name << " " << threads;
      }
    }
  }
}

// A follow-up reuses the cache; the answer is the one that a fresh session gives.
TEST_P(EngineVariants, PrefixReuseEqualsAFreshRun) {
  const TempDir dir;
  testing_support::write_tiny_model(dir.path(), GetParam().model);
  const Image image = picture(33, 50, 6);
  for (const KvCacheType cache : kCacheTypes) {
    const Engine engine = Engine::load(dir.path(), {.threads = 2, .kv_cache = cache});
    Session warm = engine.new_session();
    (void)run(warm, ask(image));
    Prompt follow_up = ask(image);
    follow_up.messages.push_back({"assistant", "a thing"});
    follow_up.messages.push_back({"user", "what thing"});
    SamplingParams params;
    params.max_new_tokens = 8;
    params.ignore_eos = true;
    std::vector<std::int32_t> reused;
    {
      Generation generation = warm.start(follow_up, params);
      EXPECT_GT(generation.stats().cached_tokens, generation.stats().image_tokens);
      while (const auto token = generation.next()) reused.push_back(token->id);
      EXPECT_EQ(generation.stats().image_seconds, 0);  // the picture was not encoded again
    }
    Session fresh = engine.new_session();
    EXPECT_EQ(reused, run(fresh, follow_up, params));
    const Image other = picture(33, 50, 7);  // another picture of the same size shares only the text before it
    EXPECT_LT(warm.start(ask(other), params).stats().cached_tokens, fresh.position());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineVariants,
                         testing::Values(Variant{"f32", {}},
                                         Variant{"f16", {.llm_format = "f16p16", .vision_format = "f16p16"}},
                                         Variant{"int8", {.llm_format = "w8p16x4g32", .vision_format = "w8p16x4g0"}},
                                         Variant{"int4", {.llm_format = "w4p16x8g32z", .vision_format = "w8p16x4g32"}},
                                         Variant{"int4_symmetric", {.llm_format = "w4p16x8g32"}},
                                         Variant{"intern_vit", {.intern_vit = true}}, Variant{"s2", {.s2 = true}}),
                         [](const auto& test) { return test.param.name; });

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    testing_support::write_tiny_model(dir_.path());
    engine_.emplace(Engine::load(dir_.path(), {.threads = 2}));
  }
  TempDir dir_;
  std::optional<Engine> engine_;
  Image image_ = picture(40, 40, 1);
};

TEST_F(EngineTest, LongPromptsInChunksEqualTheSumOfTheirParts) {
  Prompt long_prompt;
  std::string text;
  for (int i = 0; i < 140; ++i) text += "this ";  // more than one pass of 512 rows
  long_prompt.messages = {{"user", text}};
  const FloatArray whole = engine_->logits(long_prompt);
  ASSERT_GT(whole.shape[0], 512);
  Session session = engine_->new_session();
  SamplingParams params;
  params.max_new_tokens = 1;
  Generation generation = session.start(long_prompt, params);
  const auto token = generation.next();
  const float* last = whole.data.data() + (whole.shape[0] - 1) * whole.shape[1];
  EXPECT_EQ(token->id, std::max_element(last, last + whole.shape[1]) - last);
}

// What lies in the cache from earlier questions, from chunks of another size or from another branch of the dialogue,
// changes no bit of a log probability.
TEST_F(EngineTest, ACachedPrefixGivesTheBitsOfAFreshSession) {
  const auto texts = [](int words) {
    std::string text;
    for (int i = 0; i < words; ++i) text += "this ";
    Prompt prompt;
    prompt.messages = {{"user", text}};
    return prompt;
  };
  const auto answer = [](Session& session, const Prompt& prompt, std::int64_t& cached) {
    SamplingParams params;
    params.max_new_tokens = 5;
    params.ignore_eos = true;
    Generation generation = session.start(prompt, params);
    cached = generation.stats().cached_tokens;
    std::vector<std::pair<std::int32_t, float>> tokens;
    while (const auto token = generation.next()) tokens.emplace_back(token->id, token->logprob);
    return tokens;
  };
  for (const KvCacheType type : kCacheTypes) {
    const Engine engine = Engine::load(dir_.path(), {.threads = 2, .kv_cache = type});
    std::int64_t cached = 0;
    Session warm = engine.new_session();
    (void)answer(warm, texts(3), cached);
    for (const int words : {70, 20, 45}) {  // longer, cut back, longer again
      const auto found = answer(warm, texts(words), cached);
      EXPECT_GT(cached, 0);
      Session fresh = engine.new_session();
      EXPECT_EQ(found, answer(fresh, texts(words), cached)) << words;
      EXPECT_EQ(cached, 0);
    }
  }
}

TEST_F(EngineTest, Int8CacheTakesHalfTheMemoryAndHasAName) {
  const Engine int8 = Engine::load(dir_.path(), {.threads = 1, .kv_cache = KvCacheType::int8});
  EXPECT_NE(int8.info_json().find("\"kv_cache\": \"int8\""), std::string::npos) << int8.info_json();
  Session small = int8.new_session();
  Session large = engine_->new_session();
  EXPECT_EQ(run(small, ask(image_)).size(), 12U);
  (void)run(large, ask(image_));
  ASSERT_EQ(small.position(), large.position());
  // A head has 16 columns: 16 bytes and a scale of 4 in the place of 32.
  EXPECT_EQ(small.cache_bytes() * 32, large.cache_bytes() * 20);
  for (const KvCacheType type : {KvCacheType::f16, KvCacheType::f32, KvCacheType::int8}) {
    EXPECT_EQ(kv_cache_type(name_of(type)), type);
  }
  expect_error<InvalidArgument>([] { (void)kv_cache_type("q8_0"); }, {"kv_cache", "\"int8\"", "got \"q8_0\""});
  expect_error<InvalidArgument>([&] { (void)Engine::load(dir_.path(), {.kv_cache = static_cast<KvCacheType>(9)}); },
                                {"kv_cache", "got 9"});
}

TEST_F(EngineTest, TellsWhyItEnded) {
  Session session = engine_->new_session();
  SamplingParams params;
  params.max_new_tokens = 3;
  params.ignore_eos = true;
  Generation generation = session.start(ask(image_), params);
  int tokens = 0;
  while (generation.next()) ++tokens;
  EXPECT_EQ(tokens, 3);
  EXPECT_EQ(generation.finish_reason(), FinishReason::length);
  EXPECT_EQ(generation.stats().completion_tokens, 3);
  EXPECT_EQ(generation.stats().image_tokens, 9);  // a grid of 5 becomes 3 x 3
}

TEST_F(EngineTest, CancelEndsAndLeavesTheSessionUsable) {
  Session session = engine_->new_session();
  const std::vector<std::int32_t> expected = run(session, ask(image_));
  session.reset();
  {
    Generation generation = session.start(ask(image_));
    generation.cancel();
    EXPECT_FALSE(generation.next().has_value());
    EXPECT_EQ(generation.finish_reason(), FinishReason::cancelled);
  }
  EXPECT_EQ(run(session, ask(image_)), expected);
}

TEST_F(EngineTest, SessionsDoNotDisturbEachOther) {
  Session first = engine_->new_session();
  const std::vector<std::int32_t> expected = run(first, ask(image_));
  std::vector<std::thread> threads;
  std::vector<std::vector<std::int32_t>> results(3);
  for (auto& result : results) {
    threads.emplace_back([&] {
      Session session = engine_->new_session();
      result = run(session, ask(image_));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST_F(EngineTest, BeamsFindAtLeastTheGreedyScore) {
  for (const KvCacheType type : kCacheTypes) {
    const Engine engine = Engine::load(dir_.path(), {.threads = 2, .kv_cache = type});
    Session session = engine.new_session();
    const auto score = [&](int beams) {
      SamplingParams params;
      params.max_new_tokens = 6;
      params.ignore_eos = true;
      params.num_beams = beams;
      Generation generation = session.start(ask(image_), params);
      std::vector<std::int32_t> ids;
      double sum = 0;
      while (const auto token = generation.next()) {
        ids.push_back(token->id);
        sum += static_cast<double>(token->logprob);
      }
      EXPECT_EQ(ids.size(), 6U);
      return sum;
    };
    EXPECT_GE(score(4), score(1) - 1e-4);
  }
}

TEST_F(EngineTest, ErrorsNameWhatWasExpected) {
  Session session = engine_->new_session();
  Generation open = session.start(ask(image_));
  expect_error<InvalidArgument>([&] { (void)session.start(ask(image_)); }, {"no open generation"});
  expect_error<InvalidArgument>([&] { session.reset(); }, {"no open generation"});
  Session other = engine_->new_session();
  Prompt too_long;
  too_long.messages = {{"user", std::string(900, 'q')}};
  expect_error<CapacityError>([&] { (void)other.start(too_long); }, {"at most 1023 tokens", "got 1072"});
  EXPECT_EQ(run(other, ask(image_)).size(), 12U);
  expect_error<UnsupportedError>([&] { (void)Engine::load(dir_.path(), {.isa = "pentium"}); }, {"pentium", "scalar"});
  expect_error<UnsupportedError>([&] { (void)Engine::load(dir_.path(), {.conv_mode = "nope"}); },
                                 {"nope", "vicuna_v1"});
  expect_error<InvalidArgument>([&] { (void)Engine::load(dir_.path(), {.threads = -1}); }, {"threads", "-1"});
  expect_error<InvalidArgument>([&] { (void)Engine::load(dir_.path(), {.max_context = 4096}); },
                                {"max_context", "1024"});
}

TEST_F(EngineTest, ContextEndsTheAnswer) {
  const Engine small = Engine::load(dir_.path(), {.threads = 1, .max_context = 340});
  Session session = small.new_session();
  Prompt prompt;
  prompt.messages = {{"user", "this"}};
  SamplingParams params;
  params.ignore_eos = true;
  Generation generation = session.start(prompt, params);
  std::int64_t tokens = 0;
  while (generation.next()) ++tokens;
  EXPECT_EQ(generation.finish_reason(), FinishReason::length);
  EXPECT_EQ(generation.stats().prompt_tokens + tokens, 340);
}

}  // namespace
}  // namespace vila
