// Finds added tokens in a text before the model sees the rest, in the two ways of the reference: that of transformers'
// slow tokenizers (Python) and that of the tokenizers library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/tokenizer_spec.h"

namespace vila {

/// A set of contents, looked up character by character.
class TokenTrie {
 public:
  TokenTrie() : nodes_(1) {}
  /// `value` >= 0; adding the same content again keeps the first value.
  void add(std::string_view content, std::int32_t value);
  [[nodiscard]] static constexpr std::int32_t root() { return 0; }
  /// The node after `c`, or -1.
  [[nodiscard]] std::int32_t step(std::int32_t node, char32_t c) const;
  /// The value of the content that ends here, or -1.
  [[nodiscard]] std::int32_t value(std::int32_t node) const { return nodes_[static_cast<std::size_t>(node)].value; }

 private:
  struct Node {
    std::vector<std::pair<char32_t, std::int32_t>> children;  // sorted by character
    std::int32_t value = -1;
  };
  std::vector<Node> nodes_;
};

/// transformers' PreTrainedTokenizer.tokenize up to the model: Immutable and thread-safe; borrows the tokens.
class SlowSplitter {
 public:
  struct Part {
    std::string text;
    std::int32_t id;  ///< of the added token that `text` is, or -1
  };
  explicit SlowSplitter(std::span<const AddedToken> tokens);
  /// Parts without text are left out. `text` is valid UTF-8.
  [[nodiscard]] std::vector<Part> split(std::string_view text) const;
  /// The id of an added token with this content, or -1.
  [[nodiscard]] std::int32_t id_of(std::string_view content) const;

 private:
  [[nodiscard]] std::vector<std::size_t> cuts(const std::u32string& text) const;
  void apply_flags(std::vector<std::string>& parts) const;

  std::span<const AddedToken> tokens_;
  std::unordered_map<std::string_view, const AddedToken*> by_content_;
  TokenTrie trie_;
};

/// The tokenizers library's AddedVocabulary without a normaliser. Immutable and thread-safe; borrows the tokens.
class FastSplitter {
 public:
  struct Part {
    std::string_view text;
    std::int32_t id;  ///< of the added token, or -1
  };
  explicit FastSplitter(std::span<const AddedToken> tokens);
  /// Views into `text`, which is valid UTF-8.
  [[nodiscard]] std::vector<Part> split(std::string_view text) const;

 private:
  void split_once(const TokenTrie& trie, std::string_view text, std::vector<Part>& parts) const;

  std::span<const AddedToken> tokens_;
  TokenTrie raw_;         // values are indices into tokens_
  TokenTrie normalized_;  // second pass, over what the first left
};

}  // namespace vila
