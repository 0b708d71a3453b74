// What defines a tokenizer, as plain data (docs/FORMATS.md, "Tokenizer"). Holds no behaviour beyond its own check.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vila {

/// A piece of text that is found before the model sees the rest; flags as in the tokenizers library.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false;       ///< swallows whitespace on its left
  bool rstrip = false;       ///< swallows whitespace on its right
  bool single_word = false;  ///< is found only where no word continues
  bool normalized = false;   ///< byte-level: is found after all tokens that are not
};

struct TokenizerSpec {
  enum class Kind : std::uint8_t { spm_bpe, byte_bpe };
  Kind kind = Kind::spm_bpe;
  std::vector<std::string> pieces;  ///< [V]; UTF-8 with U+2581 (spm) or raw bytes (byte-level); added tokens in place
  std::vector<float> scores;        ///< [V], spm only
  std::vector<std::uint8_t> types;  ///< [V], SentencePiece's types; 0: an added token that the model does not know
  std::vector<std::pair<std::int32_t, std::int32_t>> merges;  ///< byte-level only: ids of both parts, best first
  std::string pretokenizer = "llama3";                        ///< byte-level only: "llama3" or "gpt2"
  bool ignore_merges = false;                                 ///< byte-level only: a word that is a piece is not split
  bool add_bos = false;
  bool add_eos = false;
  bool legacy = false;                    ///< spm only: transformers' behaviour before its pull request 24565
  bool add_dummy_prefix = true;           ///< spm only: the model's own flag, heeded with `legacy`
  bool remove_extra_whitespaces = false;  ///< spm only: the model's own flag
  bool clean_up_spaces = false;           ///< decoding drops the space in " .", " ,", " n't" and the like
  std::optional<std::int32_t> bos_id, eos_id, unk_id, pad_id;
  std::vector<std::string> special_tokens;  ///< contents named in special_tokens_map.json
  std::vector<AddedToken> added_tokens;
};

/// Everything that is inconsistent in sizes, ids and contents, one sentence each; empty when all is well.
[[nodiscard]] std::vector<std::string> find_problems(const TokenizerSpec& spec);

}  // namespace vila
