// Text to token ids and back, equal to transformers' slow LlamaTokenizer (SentencePiece BPE) and to the tokenizers
// library (byte-level BPE). Knows no chat template and no model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace vila {

inline constexpr std::int32_t kImageId = -200;             ///< stands for a picture among ids
inline constexpr std::string_view kImageMark = "<image>";  ///< stands for a picture in a prompt

/// Immutable and thread-safe.
class Tokenizer {
 public:
  /// Throws CheckpointError with everything that is inconsistent.
  explicit Tokenizer(TokenizerSpec spec);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Any bytes; each maximal part that is no UTF-8 is read as U+FFFD. `add_special`: BOS and EOS as the spec says.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, bool add_special = true) const;
  /// Valid UTF-8. Throws InvalidArgument for ids outside the vocabulary.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, bool skip_special = true) const;

  /// Throws InvalidArgument for an id outside the vocabulary. Lives as long as the tokenizer.
  [[nodiscard]] std::string_view piece_bytes(std::int32_t id) const;
  /// Whether decode() leaves the id out.
  [[nodiscard]] bool is_special(std::int32_t id) const;
  /// An added token's or a piece's id.
  [[nodiscard]] std::optional<std::int32_t> id_of(std::string_view piece) const;
  [[nodiscard]] std::int32_t vocab_size() const;
  [[nodiscard]] std::optional<std::int32_t> bos_id() const;
  [[nodiscard]] std::optional<std::int32_t> eos_id() const;
  [[nodiscard]] std::optional<std::int32_t> unk_id() const;
  [[nodiscard]] std::optional<std::int32_t> pad_id() const;
  [[nodiscard]] const TokenizerSpec& spec() const;

  struct State;  ///< for the text room's own use

 private:
  friend class Detokenizer;
  std::unique_ptr<const State> state_;
};

/// Tokenises the text between "<image>" marks chunk by chunk and puts kImageId between the chunks, by VILA's rule: if
/// the first id of the first chunk is BOS, it is kept once and every chunk loses its first id, whatever that is.
[[nodiscard]] std::vector<std::int32_t> encode_with_images(const Tokenizer& tokenizer, std::string_view prompt);

}  // namespace vila
