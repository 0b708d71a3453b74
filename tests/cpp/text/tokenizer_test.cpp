#include "text/tokenizer.h"

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/unicode.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;
using Ids = std::vector<std::int32_t>;

std::string byte_piece(int byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  return {'<', '0', 'x', kHex[static_cast<std::size_t>(byte / 16)], kHex[static_cast<std::size_t>(byte % 16)], '>'};
}

/// <unk> <s> </s>, 256 bytes from id 3, then pieces from 259 with falling scores.
TokenizerSpec spm_spec(const std::vector<std::string>& pieces) {
  TokenizerSpec spec;
  spec.pieces = {"<unk>", "<s>", "</s>"};
  spec.types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    spec.pieces.push_back(byte_piece(b));
    spec.types.push_back(6);
  }
  spec.scores.assign(spec.pieces.size(), 0.0F);
  for (const std::string& piece : pieces) {
    spec.scores.push_back(-static_cast<float>(spec.pieces.size()));
    spec.pieces.push_back(piece);
    spec.types.push_back(1);
  }
  spec.bos_id = 1;
  spec.eos_id = 2;
  spec.unk_id = 0;
  spec.add_bos = true;
  spec.special_tokens = {"<s>", "</s>", "<unk>"};
  for (std::int32_t id = 0; id < 3; ++id) {
    spec.added_tokens.push_back({.id = id, .content = spec.pieces[static_cast<std::size_t>(id)], .special = true});
  }
  return spec;
}

const std::vector<std::string> kPieces = {"ab",
                                          "abc",
                                          "\xe2\x96\x81"
                                          "ab",
                                          "a",
                                          "b",
                                          "c",
                                          "\xe2\x96\x81",
                                          "bc"};
constexpr std::int32_t kAb = 259, kAbc = 260, kSpaceAb = 261, kA = 262, kC = 264, kSpace = 265, kBc = 266;

TEST(SpmTokenizer, MergesByScoreThenFromTheLeft) {
  const Tokenizer tokenizer(spm_spec(kPieces));
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{1, kSpaceAb}));
  EXPECT_EQ(tokenizer.encode(" abc"), (Ids{1, kSpace, kSpace, kAbc}));
  EXPECT_EQ(tokenizer.encode("cabc", false), (Ids{kSpace, kC, kAbc}));
  EXPECT_EQ(tokenizer.encode("aabbc", false), (Ids{kSpace, kA, kAb, kBc}));
  EXPECT_EQ(tokenizer.encode(""), Ids{1});
}

TEST(SpmTokenizer, FallsBackToBytesAndReadsInvalidBytesAsReplacement) {
  const Tokenizer tokenizer(spm_spec(kPieces));
  EXPECT_EQ(tokenizer.encode("\xc3\xa9", false), (Ids{kSpace, 3 + 0xc3, 3 + 0xa9}));
  EXPECT_EQ(tokenizer.encode("\xff", false), (Ids{kSpace, 3 + 0xef, 3 + 0xbf, 3 + 0xbd}));
}

TEST(SpmTokenizer, SpecialTokensAreFoundInTextAndLeftOutOfIt) {
  const Tokenizer tokenizer(spm_spec(kPieces));
  const Ids ids = {1, kSpaceAb, 2, kA};
  EXPECT_EQ(tokenizer.encode("ab</s>a"), ids);
  EXPECT_EQ(tokenizer.decode(ids), "aba");
  EXPECT_EQ(tokenizer.decode(ids, false), "<s> ab</s>a");
  EXPECT_TRUE(tokenizer.is_special(2) && !tokenizer.is_special(kA));
}

TEST(SpmTokenizer, ImagesSplitThePromptAndTheFirstIdOfEachChunkIsLost) {
  const Tokenizer tokenizer(spm_spec(kPieces));
  EXPECT_EQ(encode_with_images(tokenizer, "ab<image>ab<image>"), (Ids{1, kSpaceAb, kImageId, kSpaceAb, kImageId}));
  TokenizerSpec spec = spm_spec(kPieces);
  spec.add_bos = false;
  const Tokenizer without_bos(std::move(spec));
  EXPECT_EQ(encode_with_images(without_bos, "<image>ab"), (Ids{kImageId, kSpaceAb}));
  // A literal BOS begins the first chunk, so the second loses a token of its own, the space.
  EXPECT_EQ(encode_with_images(without_bos, "<s>c<image>abc"), (Ids{1, kC, kImageId, kAbc}));
}

TEST(SpmTokenizer, StreamsWholeCharactersOnly) {
  const Tokenizer tokenizer(spm_spec(kPieces));
  Detokenizer detokenizer(tokenizer, true);
  EXPECT_EQ(detokenizer.push(kSpaceAb), "ab");
  EXPECT_EQ(detokenizer.push(3 + 0xe4), "");
  EXPECT_EQ(detokenizer.push(3 + 0xb8), "");
  EXPECT_EQ(detokenizer.push(3 + 0xad), "\xe4\xb8\xad");
  EXPECT_EQ(detokenizer.push(3 + 0xe4), "");
  EXPECT_EQ(detokenizer.push(kSpaceAb), std::string(kReplacementChar) + " ab");
  EXPECT_EQ(detokenizer.push(3 + 0xf0), "");
  EXPECT_EQ(detokenizer.flush(), kReplacementChar);
  EXPECT_EQ(detokenizer.push(kSpaceAb), "ab");
}

TEST(SpmTokenizer, OneObjectServesManyThreads) {
  const Tokenizer tokenizer(spm_spec(kPieces));
  const std::string text = "ab abc </s> cab \xc3\xa9";
  const Ids expected = tokenizer.encode(text);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        count += tokenizer.encode(text) != expected || tokenizer.decode(expected) != "ab abc  cab \xc3\xa9";
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(SpmTokenizer, UserDefinedPiecesAreTakenWhole) {
  TokenizerSpec spec = spm_spec({"a", "b", "ab", "<|im_start|>"});
  spec.types.back() = 4;
  const Tokenizer tokenizer(std::move(spec));
  EXPECT_EQ(tokenizer.encode("ab<|im_start|>a", false).back(), 259);
  EXPECT_EQ(tokenizer.encode("ab<|im_start|>a", false).end()[-2], 262);
  EXPECT_EQ(detect_conv_mode(tokenizer), "hermes-2");
}

TokenizerSpec byte_spec() {
  TokenizerSpec spec;
  spec.kind = TokenizerSpec::Kind::byte_bpe;
  for (int b = 0; b < 256; ++b) spec.pieces.emplace_back(1, static_cast<char>(b));
  for (const char* piece : {"ab", "abab", " ab", "xyz"}) spec.pieces.emplace_back(piece);
  spec.types.assign(spec.pieces.size(), 1);
  spec.merges = {{'a', 'b'}, {256, 256}, {' ', 256}};
  spec.pieces.emplace_back("<|eot_id|>");
  spec.types.push_back(0);
  spec.added_tokens.push_back({.id = 260, .content = "<|eot_id|>", .special = true});
  return spec;
}

TEST(ByteTokenizer, MergesByRankAndKeepsWholeWords) {
  TokenizerSpec spec = byte_spec();
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode("ababab ab<|eot_id|>xyz"), (Ids{257, 256, 258, 260, 'x', 'y', 'z'}));
  spec.ignore_merges = true;
  EXPECT_EQ(Tokenizer(std::move(spec)).encode("xyz"), Ids{259});
}

TEST(ByteTokenizer, LongWordsMergeAsShortOnes) {
  const Tokenizer tokenizer(byte_spec());
  std::string word;
  for (int i = 0; i < 1001; ++i) word += "ab";
  Ids expected(500, 257);
  expected.push_back(256);
  EXPECT_EQ(tokenizer.encode(word), expected);
}

TEST(ByteTokenizer, CleanUpDropsSpacesAlsoAcrossTokens) {
  TokenizerSpec spec = byte_spec();
  spec.clean_up_spaces = true;
  const Tokenizer tokenizer(std::move(spec));
  EXPECT_EQ(tokenizer.decode(Ids{'a', ' ', '.', ' ', 'n', '\'', 't', ' '}), "a.n't ");
  Detokenizer detokenizer(tokenizer, true);
  EXPECT_EQ(detokenizer.push('a'), "a");
  EXPECT_EQ(detokenizer.push(' '), "");
  EXPECT_EQ(detokenizer.push('b'), " b");
}

TEST(Tokenizer, ListsEverythingThatIsInconsistent) {
  TokenizerSpec spec = byte_spec();
  spec.pretokenizer = "bert";
  spec.eos_id = 999;
  spec.added_tokens.push_back({.id = 3, .content = "x"});
  expect_error<CheckpointError>([&] { Tokenizer{spec}; }, {"got \"bert\"", "eos_id: expected an id below 261, got 999",
                                                           "expected it as piece 3"});
  spec = byte_spec();
  spec.merges.emplace_back('q', 'q');
  spec.merges.emplace_back(-1, 'q');
  expect_error<CheckpointError>([&] { Tokenizer{spec}; },
                                {"merge 3: expected its result", "merge 4: expected ids below 261"});
  spec = spm_spec({"a", "a"});
  spec.types[0] = 1;
  expect_error<CheckpointError>([&] { Tokenizer{spec}; }, {"got \"a\" again", "expected one unknown piece, got 0"});
  const Tokenizer tokenizer(byte_spec());
  expect_error<InvalidArgument>([&] { static_cast<void>(tokenizer.decode(Ids{kImageId})); }, {"0..260", "-200"});
}

}  // namespace
}  // namespace vila
