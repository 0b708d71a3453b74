#include "engine/prompt.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace vila {
namespace {

using testing_support::expect_error;

const std::uint8_t kPixels[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
const ImageView kPicture{kPixels, 2, 2, 6};

class PromptTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new testing_support::TempDir();
    testing_support::write_tiny_model(dir_->path());
    engine_ = new Engine(Engine::load(dir_->path(), {.threads = 1}));
  }
  static void TearDownTestSuite() {
    delete engine_;
    delete dir_;
  }
  static std::string text(const Prompt& prompt) {
    const std::string whole = engine_->prompt_text(prompt);
    const std::size_t user = whole.find("USER: ");
    return whole.substr(user);
  }
  static testing_support::TempDir* dir_;
  static Engine* engine_;
};
testing_support::TempDir* PromptTest::dir_ = nullptr;
Engine* PromptTest::engine_ = nullptr;

Prompt ask(std::string question, std::size_t images = 0, std::vector<std::size_t> videos = {}) {
  Prompt prompt;
  prompt.messages = {{"user", std::move(question)}};
  prompt.images.assign(images, kPicture);
  for (const std::size_t frames : videos) prompt.videos.emplace_back(frames, kPicture);
  return prompt;
}

TEST_F(PromptTest, MarksStayWhereTheyAreAndUntaggedMediaGoInFront) {
  EXPECT_EQ(text(ask("<image> is a. <image> is", 2)), "USER: <image> is a. <image> is ASSISTANT:");
  EXPECT_EQ(text(ask("what", 2)), "USER: <image>\n<image>\nwhat ASSISTANT:");
  EXPECT_EQ(text(ask("<image-placeholder> what", 1)), "USER: <image> what ASSISTANT:");
}

TEST_F(PromptTest, VideosBecomeTheirFrames) {
  EXPECT_EQ(text(ask("<video>\nwhat", 0, {3})), "USER: <image>\n<image>\n<image>\nwhat ASSISTANT:");
  EXPECT_EQ(text(ask("what", 0, {2})), "USER: <image>\n<image>\nwhat ASSISTANT:");
  EXPECT_EQ(text(ask("<image> or <video> what", 1, {1})), "USER: <image> or <image>\n what ASSISTANT:");
}

TEST_F(PromptTest, ReferenceCompatKeepsALoneVideoMark) {
  Prompt prompt = ask("<image>\n<video>\\n what", 1);
  expect_error<InvalidArgument>([&] { (void)text(prompt); }, {"<video>", "expected 1 videos", "got 0"});
  prompt.reference_compat = true;
  EXPECT_EQ(text(prompt), "USER: <image>\n<video>\\n what ASSISTANT:");
}

TEST_F(PromptTest, MoreOrFewerMediaThanMarksAreErrors) {
  expect_error<InvalidArgument>([] { (void)text(ask("<image> and <image>", 1)); }, {"expected 2 pictures", "got 1"});
  expect_error<InvalidArgument>([] { (void)text(ask("<image>", 3)); }, {"expected 1 pictures", "got 3"});
  expect_error<InvalidArgument>([] { (void)text(ask("<video> a", 0, {0})); }, {"at least 1 frame"});
  expect_error<InvalidArgument>([] { (void)text(ask("<video> a <video>", 0, {1})); }, {"expected 2 videos", "got 1"});
}

TEST_F(PromptTest, IdsHoldAPlaceholderPerPicture) {
  const std::vector<std::int32_t> ids = engine_->prompt_ids(ask("<image> this <image>", 2));
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kImageId), 2);
  EXPECT_EQ(ids.front(), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1), 1);
}

TEST(HashImage, SeesPixelsAndShape) {
  std::uint8_t other[12];
  std::copy(std::begin(kPixels), std::end(kPixels), other);
  EXPECT_EQ(hash_image(kPicture), hash_image({other, 2, 2, 6}));
  EXPECT_NE(hash_image(kPicture), hash_image({other, 4, 1, 12}));
  other[11] ^= 1;
  EXPECT_NE(hash_image(kPicture), hash_image({other, 2, 2, 6}));
}

}  // namespace
}  // namespace vila
