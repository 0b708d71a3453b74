// Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909, on bytes as in GPT-2): one word to ids. Splitting into words,
// added tokens and decoding are elsewhere.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/pair_map.h"

namespace vila {

/// GPT-2's printable stand-ins: if every character of `text` stands for a byte, those bytes, else `text` itself.
[[nodiscard]] std::string from_byte_alphabet(std::string_view text);

/// Immutable and thread-safe. Borrows the pieces, which must outlive it.
class ByteBpe {
 public:
  /// `merges`: ids of left and right part, best first. Pieces of type 0 and 5 are no part of the model.
  /// Appends what is inconsistent to `problems`; the object is usable only if nothing was added.
  ByteBpe(std::span<const std::string> pieces, std::span<const std::uint8_t> types,
          std::span<const std::pair<std::int32_t, std::int32_t>> merges, bool ignore_merges,
          std::vector<std::string>& problems);

  /// Appends the ids of one word.
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids) const;
  [[nodiscard]] std::optional<std::int32_t> id_of(std::string_view piece) const;

 private:
  struct Merge {
    std::int32_t rank = 0;
    std::int32_t id = 0;
  };
  [[nodiscard]] const Merge* merge_of(std::int32_t left, std::int32_t right) const {
    return merges_.find(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  }
  void merge_short(std::string_view word, std::vector<std::int32_t>& ids) const;
  void merge_long(std::string_view word, std::vector<std::int32_t>& ids) const;

  std::array<std::int32_t, 256> byte_ids_{};
  std::unordered_map<std::string_view, std::int32_t> ids_;
  PairMap<Merge> merges_;
  bool ignore_merges_;
};

}  // namespace vila
