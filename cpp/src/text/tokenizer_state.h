// What a Tokenizer has worked out from its spec; shared by tokenizer.cpp and detokenizer.cpp only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_bpe.h"
#include "text/pretokenizer.h"
#include "text/spm_bpe.h"
#include "text/tokenizer.h"

namespace vila {

struct Tokenizer::State {
  explicit State(TokenizerSpec spec_in);
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  TokenizerSpec spec;                                      // the members below view into it
  std::unordered_map<std::string_view, std::int32_t> ids;  // pieces, then added tokens over them
  std::unordered_set<std::string_view> special_contents;
  std::vector<bool> special;         // [V]
  std::vector<bool> separate;        // [V], spm: an added token that decoding sets apart with spaces
  std::vector<std::string> decoded;  // [V], byte-level: the bytes an id stands for in a text

  std::optional<SpmBpe> spm;
  std::optional<SlowSplitter> slow;
  std::vector<std::int32_t> renamed;  // [V], spm: the id of the added token whose content a piece is, else the piece's
  std::string unknown_text;           // spm: guards leading spaces
  std::size_t unknown_size = 0;       // pieces of unknown_text

  std::optional<ByteBpe> bytes;
  std::optional<FastSplitter> fast;
  Pretokenizer pretokenizer = Pretokenizer::llama3;

  [[nodiscard]] SpmBpe::Options spm_options() const {
    return {spec.legacy && spec.add_dummy_prefix, spec.remove_extra_whitespaces};
  }
  [[nodiscard]] std::vector<std::int32_t> encode_spm(std::string_view text) const;
  [[nodiscard]] std::vector<std::int32_t> encode_bytes(std::string_view text) const;
  void check_id(std::int32_t id) const;

 private:
  void prepare_spm();
  void prepare_bytes();
};

}  // namespace vila
