#include "text/unicode.h"

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "text/pretokenizer.h"

namespace vila {
namespace {

TEST(Unicode, EveryScalarValueSurvivesAndSurrogatesAreInvalid) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(text, c);
    const DecodedChar decoded = decode_utf8(text, 0);
    if (c >= 0xd800 && c < 0xe000) {
      ASSERT_EQ(decoded.status, Utf8Status::invalid) << std::hex << static_cast<unsigned>(c);
    } else {
      ASSERT_EQ(decoded.status, Utf8Status::valid) << std::hex << static_cast<unsigned>(c);
      ASSERT_EQ(decoded.value, c);
      ASSERT_EQ(decoded.size, text.size());
    }
  }
}

TEST(Unicode, MaximalInvalidPartsBecomeOneReplacementEach) {
  const std::string r(kReplacementChar);
  EXPECT_EQ(replace_invalid_utf8("a\x80z"), "a" + r + "z");
  EXPECT_EQ(replace_invalid_utf8("\xe2\x82"), r);  // the beginning of a character
  EXPECT_EQ(replace_invalid_utf8("\xe2\x82z"), r + "z");
  EXPECT_EQ(replace_invalid_utf8("\xc0\xaf"), r + r);          // overlong
  EXPECT_EQ(replace_invalid_utf8("\xed\xa0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\x98\xf0\x9f\x98\x80"), r + "\xf0\x9f\x98\x80");
  EXPECT_EQ(replace_invalid_utf8("\xf4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
}

TEST(Unicode, TruncatedCharactersAreIncomplete) {
  EXPECT_EQ(decode_utf8("\xf0\x9f\x98", 0).status, Utf8Status::incomplete);
  EXPECT_EQ(decode_utf8("\xf0\x9f\x98", 0).size, 3u);
  EXPECT_EQ(decode_utf8("\xe0\x80", 0).status, Utf8Status::invalid);
}

TEST(Unicode, Classes) {
  EXPECT_TRUE(is_letter(U'\u00e9') && is_letter(U'\u4e2d') && !is_letter(U'1') && !is_letter(U'\u0301'));
  EXPECT_TRUE(is_number(U'\u00b2') && is_number(U'\u2167') && is_number(U'\u0663') && !is_number(U'a'));
  EXPECT_TRUE(is_word(U'_') && is_word(U'\u24b6') && is_word(U'\u0301') && !is_word(U'-') && !is_word(U'\u00b2'));
  EXPECT_TRUE(is_space(U'\u3000') && is_space(U'\u0085') && !is_space(U'\u200b') && !is_space(0x1c));
  EXPECT_TRUE(is_python_space(0x1c) && is_python_space(U' ') && !is_python_space(U'x'));
}

std::vector<std::string_view> words(Pretokenizer kind, std::string_view text) {
  std::vector<std::string_view> out;
  split_words(kind, text, out);
  return out;
}

using Words = std::vector<std::string_view>;

TEST(Pretokenizer, Llama3) {
  constexpr auto kind = Pretokenizer::llama3;
  EXPECT_EQ(words(kind, "It's WE'LL 12345 a"), (Words{"It", "'s", " WE", "'LL", " ", "123", "45", " a"}));
  EXPECT_EQ(words(kind, "x  y"), (Words{"x", " ", " y"}));
  EXPECT_EQ(words(kind, "a \n\n  b"), (Words{"a", " \n\n", " ", " b"}));
  EXPECT_EQ(words(kind, "?!\r\n-x  "), (Words{"?!\r\n", "-x", "  "}));
  EXPECT_EQ(words(kind, "'\u017fab"), (Words{"'\u017f", "ab"}));  // the long s folds to s
  EXPECT_EQ(words(kind, ""), Words{});
}

TEST(Pretokenizer, Gpt2) {
  constexpr auto kind = Pretokenizer::gpt2;
  EXPECT_EQ(words(kind, "It's WE'LL 12345 a"), (Words{"It", "'s", " WE", "'", "LL", " 12345", " a"}));
  EXPECT_EQ(words(kind, "a \n\n  b"), (Words{"a", " \n\n ", " b"}));
  EXPECT_EQ(words(kind, "\tx ?!y"), (Words{"\t", "x", " ?!", "y"}));
}

}  // namespace
}  // namespace vila
