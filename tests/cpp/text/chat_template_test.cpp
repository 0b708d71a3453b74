#include "text/chat_template.h"

#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;

TEST(ChatTemplate, RendersADialogue) {
  const std::vector<ChatMessage> messages = {{"user", "Hi"}, {"assistant", "Yes."}, {"user", "<image>?"}};
  const ChatTemplate& plain_vicuna = ChatTemplate::by_name("vicuna_v1_nosys");
  EXPECT_EQ(plain_vicuna.render(messages), " USER: Hi ASSISTANT: Yes.</s>USER: <image>? ASSISTANT:");
  EXPECT_EQ(plain_vicuna.render(messages, "S"), "S USER: Hi ASSISTANT: Yes.</s>USER: <image>? ASSISTANT:");
  EXPECT_EQ(&ChatTemplate::by_name("v1"), &ChatTemplate::by_name("vicuna_v1"));
}

TEST(ChatTemplate, StopStrings) {
  EXPECT_EQ(ChatTemplate::by_name("vicuna_v1").stop_string(), "</s>");
  EXPECT_EQ(ChatTemplate::by_name("llama_3").stop_string(), "<|end_of_text|>");
  EXPECT_EQ(ChatTemplate::by_name("llama_3_fix").stop_string(), "<|eot_id|>");
  EXPECT_EQ(ChatTemplate::by_name("hermes-2").stop_string(), "<|im_end|>");
}

TEST(ChatTemplate, Errors) {
  expect_error<UnsupportedError>([] { static_cast<void>(ChatTemplate::by_name("mpt")); },
                                 {"vicuna_v1", "llama_3_fix", "hermes-2", "got \"mpt\""});
  const ChatTemplate& chat = ChatTemplate::by_name("llama_3");
  const std::vector<ChatMessage> wrong = {{"assistant", "Hi"}};
  expect_error<InvalidArgument>([&] { static_cast<void>(chat.render(wrong)); }, {"expected user", "got \"assistant\""});
  expect_error<InvalidArgument>([&] { static_cast<void>(chat.render({})); }, {"no message"});
}

}  // namespace
}  // namespace vila
