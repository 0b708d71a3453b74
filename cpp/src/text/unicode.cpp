#include "text/unicode.h"

#include <algorithm>
#include <span>

#include "text/unicode_tables.h"

namespace vila {
namespace {

bool contains(std::span<const unicode_tables::CodePointRange> ranges, char32_t c) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), c,
                                      [](char32_t value, const auto& range) { return value < range.first; });
  return after != ranges.begin() && c <= std::prev(after)->last;
}

bool is_ascii_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_ascii_digit(char32_t c) { return c >= '0' && c <= '9'; }

/// Shape of a character by its first byte: its size and the bounds of its second byte.
struct Lead {
  std::uint32_t size;
  std::uint8_t low, high;
};

Lead classify_lead(std::uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2 || byte > 0xf4) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte < 0xf0) {
    const std::uint8_t low = byte == 0xe0 ? 0xa0 : 0x80;
    const std::uint8_t high = byte == 0xed ? 0x9f : 0xbf;
    return {3, low, high};
  }
  const std::uint8_t low = byte == 0xf0 ? 0x90 : 0x80;
  const std::uint8_t high = byte == 0xf4 ? 0x8f : 0xbf;
  return {4, low, high};
}

}  // namespace

DecodedChar decode_utf8(std::string_view text, std::size_t pos) {
  const auto first = static_cast<std::uint8_t>(text[pos]);
  const Lead lead = classify_lead(first);
  if (lead.size == 0) return {0xfffd, 1, Utf8Status::invalid};
  if (lead.size == 1) return {first, 1, Utf8Status::valid};
  char32_t value = first & (0xffu >> (lead.size + 1));
  for (std::uint32_t i = 1; i < lead.size; ++i) {
    if (pos + i >= text.size()) return {0xfffd, i, Utf8Status::incomplete};
    const auto byte = static_cast<std::uint8_t>(text[pos + i]);
    const std::uint8_t low = i == 1 ? lead.low : std::uint8_t{0x80};
    const std::uint8_t high = i == 1 ? lead.high : std::uint8_t{0xbf};
    if (byte < low || byte > high) return {0xfffd, i, Utf8Status::invalid};
    value = (value << 6) | (byte & 0x3fu);
  }
  return {value, lead.size, Utf8Status::valid};
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0u | (c >> 6));
    put(0x80u | (c & 0x3fu));
  } else if (c < 0x10000) {
    put(0xe0u | (c >> 12));
    put(0x80u | ((c >> 6) & 0x3fu));
    put(0x80u | (c & 0x3fu));
  } else {
    put(0xf0u | (c >> 18));
    put(0x80u | ((c >> 12) & 0x3fu));
    put(0x80u | ((c >> 6) & 0x3fu));
    put(0x80u | (c & 0x3fu));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    if (c.status != Utf8Status::valid) return false;
    pos += c.size;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    out += c.status == Utf8Status::valid ? text.substr(pos, c.size) : kReplacementChar;
    pos += c.size;
  }
  return out;
}

std::u32string to_utf32(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    out.push_back(c.value);
    pos += c.size;
  }
  return out;
}

bool is_letter(char32_t c) { return c < 0x80 ? is_ascii_letter(c) : contains(unicode_tables::kLetters, c); }

bool is_number(char32_t c) { return c < 0x80 ? is_ascii_digit(c) : contains(unicode_tables::kNumbers, c); }

bool is_word(char32_t c) {
  return c < 0x80 ? is_ascii_letter(c) || is_ascii_digit(c) || c == '_' : contains(unicode_tables::kWord, c);
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_python_space(char32_t c) { return is_space(c) || (c >= 0x1c && c <= 0x1f); }

}  // namespace vila
