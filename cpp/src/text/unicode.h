// UTF-8 and the few character classes that tokenizers need (Unicode 16). No normalisation and no case mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vila {

enum class Utf8Status : std::uint8_t {
  valid,
  invalid,     ///< the first `size` bytes are a maximal part that no continuation can make valid
  incomplete,  ///< the text ends inside a character that is well-formed so far
};

/// What begins at some byte of a text.
struct DecodedChar {
  char32_t value = 0xfffd;  ///< U+FFFD unless valid
  std::uint32_t size = 1;   ///< bytes, 1..4
  Utf8Status status = Utf8Status::invalid;
};

inline constexpr std::string_view kReplacementChar = "\xef\xbf\xbd";  ///< U+FFFD
inline constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";      ///< U+2581, SentencePiece's visible space

/// Decodes at `pos` < text.size(), after table 3-7 of the Unicode standard: no overlong forms, no surrogates.
[[nodiscard]] DecodedChar decode_utf8(std::string_view text, std::size_t pos);
void append_utf8(std::string& out, char32_t c);
[[nodiscard]] bool is_valid_utf8(std::string_view text);
/// Each maximal invalid part becomes one U+FFFD, as Python's bytes.decode(errors="replace") does.
[[nodiscard]] std::string replace_invalid_utf8(std::string_view text);
/// Code points of valid UTF-8.
[[nodiscard]] std::u32string to_utf32(std::string_view text);

[[nodiscard]] bool is_letter(char32_t c);  ///< \p{L}
[[nodiscard]] bool is_number(char32_t c);  ///< \p{N}
[[nodiscard]] bool is_word(char32_t c);    ///< \w of Unicode's technical standard 18
[[nodiscard]] bool is_space(char32_t c);   ///< White_Space
/// What Python's str.strip removes: White_Space and the four information separators.
[[nodiscard]] bool is_python_space(char32_t c);

}  // namespace vila
