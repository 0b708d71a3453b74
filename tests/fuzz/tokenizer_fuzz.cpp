// Any text through two small tokenizers: ids lie in the vocabulary, and decoding piece by piece equals decoding at
// once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace {

vila::Tokenizer sentencepiece() {
  vila::TokenizerSpec spec;
  const auto add = [&spec](std::string piece, float score, std::uint8_t type) {
    spec.pieces.push_back(std::move(piece));
    spec.scores.push_back(score);
    spec.types.push_back(type);
  };
  add("<unk>", 0, 2);
  add("<s>", 0, 3);
  add("</s>", 0, 3);
  static const char* const kDigits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) add(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">", 0, 6);
  float score = 0;
  for (const char* piece : {"a", "b", "\xE2\x96\x81", "ab",
                            "\xE2\x96\x81"
                            "a",
                            "\xE2\x96\x81\xE2\x96\x81", "\xC3\xA9"})
    add(piece, score -= 1, 1);
  spec.unk_id = 0;
  spec.bos_id = 1;
  spec.eos_id = 2;
  spec.add_bos = true;
  return vila::Tokenizer(spec);
}

vila::Tokenizer byte_level() {
  vila::TokenizerSpec spec;
  spec.kind = vila::TokenizerSpec::Kind::byte_bpe;
  for (int byte = 0; byte < 256; ++byte) spec.pieces.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"ab", " a", "  ", "<end>"}) spec.pieces.emplace_back(piece);
  spec.types.assign(spec.pieces.size(), 1);
  spec.types.back() = 0;  // added below
  spec.merges = {{'a', 'b'}, {' ', 'a'}, {' ', ' '}};
  spec.added_tokens.push_back({.id = 259, .content = "<end>", .special = true});
  return vila::Tokenizer(spec);
}

void check(const vila::Tokenizer& tokenizer, std::string_view text) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text, true);
  vila::Detokenizer detokenizer(tokenizer, true);
  std::string pieces;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    pieces += detokenizer.push(id);
  }
  pieces += detokenizer.flush();
  if (pieces != tokenizer.decode(ids, true)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vila::Tokenizer kSentencepiece = sentencepiece();
  static const vila::Tokenizer kByteLevel = byte_level();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(kSentencepiece, text);
  check(kByteLevel, text);
  return 0;
}
