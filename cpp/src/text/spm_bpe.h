// SentencePiece's BPE model (Kudo and Richardson 2018, arXiv:1808.06226): a run of text to piece ids, with byte
// fallback, user-defined and unused pieces. Only the identity normaliser; added tokens and decoding are elsewhere.
#pragma once

#include <array>
#include <cstddef>
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

/// SentencePiece's piece types; 0 is ours: an added token that the model itself does not know.
enum class PieceType : std::uint8_t {
  added = 0,
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

/// Ids with, for each run of unknown characters (models without byte fallback), its index in `ids` and its text.
struct SpmIds {
  std::vector<std::int32_t> ids;
  std::vector<std::pair<std::size_t, std::string>> unknown;
};

/// Immutable and thread-safe. Borrows the pieces, which must outlive it.
class SpmBpe {
 public:
  struct Options {
    bool add_dummy_prefix = false;
    bool remove_extra_whitespaces = false;
  };

  /// Appends what is inconsistent to `problems`; the object is usable only if nothing was added.
  SpmBpe(std::span<const std::string> pieces, std::span<const float> scores, std::span<const std::uint8_t> types,
         std::vector<std::string>& problems);

  /// `text` is valid UTF-8. Spaces become U+2581 first. O(n log n) for n characters between two places that no piece
  /// spans, so about linear for text with words.
  [[nodiscard]] SpmIds encode(std::string_view text, const Options& options) const;
  /// The id of a piece of the model, else the unknown piece's.
  [[nodiscard]] std::int32_t piece_id(std::string_view piece) const;
  [[nodiscard]] std::int32_t unknown_id() const { return unknown_id_; }
  /// Value of a byte piece.
  [[nodiscard]] std::uint8_t byte_of(std::int32_t id) const;

 private:
  struct Work;
  [[nodiscard]] std::size_t symbol_size(std::string_view text, std::size_t pos, bool* frozen) const;
  [[nodiscard]] bool can_join(std::string_view text, std::size_t pos, char32_t left) const;
  void offer(Work& work, std::int32_t left, std::int32_t right) const;
  void merge(Work& work) const;
  void resegment(Work& work, std::string_view piece, SpmIds& out) const;
  void emit(std::string_view piece, SpmIds& out) const;

  std::span<const std::string> pieces_;
  std::span<const float> scores_;
  std::span<const std::uint8_t> types_;
  std::unordered_map<std::string_view, std::int32_t> mergeable_;  // normal, user-defined, unused
  std::unordered_map<std::string_view, std::int32_t> reserved_;   // unknown, control, byte
  std::vector<std::vector<std::string_view>> user_defined_;       // by first byte, longest first
  PairMap<bool> joints_;                                          // neighbouring characters inside some mergeable piece
  std::array<std::int32_t, 256> byte_ids_{};
  std::int32_t unknown_id_ = 0;
  std::size_t longest_piece_ = 0;
  bool byte_fallback_ = false;
  bool has_unused_ = false;
};

}  // namespace vila
