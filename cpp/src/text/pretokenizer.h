// Splits text into words as the patterns of GPT-2 and Llama-3 do, without a regular expression engine. Words tile the
// text: nothing is dropped.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace vila {

enum class Pretokenizer : unsigned char {
  /// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  gpt2,
  /// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
  /// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  llama3,
};

/// "gpt2" or "llama3"; nothing for another name.
[[nodiscard]] std::optional<Pretokenizer> parse_pretokenizer(std::string_view name);

/// Appends views into `text`, which must be valid UTF-8.
void split_words(Pretokenizer kind, std::string_view text, std::vector<std::string_view>& words);

}  // namespace vila
