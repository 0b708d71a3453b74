#include "text/pretokenizer.h"

#include <cstddef>
#include <cstdint>

#include "text/unicode.h"

namespace vila {
namespace {

enum class Kind : std::uint8_t { letter, number, space, newline, other, end };

/// A character under the cursor: its class, its value and where the next one begins.
struct At {
  Kind kind;
  char32_t value;
  std::size_t next;
};

class Splitter {
 public:
  Splitter(Pretokenizer kind, std::string_view text) : kind_(kind), text_(text) {}

  /// End of the word that begins at `pos`; the alternatives of the pattern in their order.
  [[nodiscard]] std::size_t word_end(std::size_t pos) const {
    const At first = at(pos);
    if (first.value == '\'') {
      const std::size_t end = contraction_end(first.next);
      if (end != 0) return end;
    }
    return kind_ == Pretokenizer::llama3 ? llama3_end(pos, first) : gpt2_end(pos, first);
  }

 private:
  [[nodiscard]] At at(std::size_t pos) const {
    if (pos >= text_.size()) return {Kind::end, 0, pos};
    const DecodedChar c = decode_utf8(text_, pos);
    return {classify(c.value), c.value, pos + c.size};
  }

  [[nodiscard]] static Kind classify(char32_t c) {
    if (c == '\r' || c == '\n') return Kind::newline;
    if (is_letter(c)) return Kind::letter;
    if (is_space(c)) return Kind::space;
    return is_number(c) ? Kind::number : Kind::other;
  }

  /// Lower case of what can stand after the apostrophe; Llama-3 ignores case, and U+017F folds to s.
  [[nodiscard]] char32_t fold(char32_t c) const {
    if (kind_ != Pretokenizer::llama3) return c;
    if (c == 0x17f) return 's';
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
  }

  /// End of 's 't 'm 'd 're 've 'll whose letters begin at `pos`, or 0.
  [[nodiscard]] std::size_t contraction_end(std::size_t pos) const {
    const At first = at(pos);
    const char32_t a = fold(first.value);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.next;
    const At second = at(first.next);
    const char32_t b = fold(second.value);
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return second.next;
    return 0;
  }

  [[nodiscard]] std::size_t run_end(std::size_t pos, Kind kind) const {
    for (At c = at(pos); c.kind == kind; c = at(pos)) pos = c.next;
    return pos;
  }

  /// A whitespace run as \s+(?!\S)|\s+ takes it: all of it at the end of the text, else all but its last character.
  [[nodiscard]] std::size_t space_end(std::size_t pos) const {
    std::size_t last = pos;
    At c = at(pos);
    std::size_t end = c.next;
    while ((c = at(end)).kind == Kind::space || c.kind == Kind::newline) {
      last = end;
      end = c.next;
    }
    return c.kind == Kind::end || last == pos ? end : last;
  }

  [[nodiscard]] std::size_t gpt2_end(std::size_t pos, const At& first) const {
    if (first.value == ' ') {
      const At second = at(first.next);
      if (second.kind == Kind::letter || second.kind == Kind::number || second.kind == Kind::other) {
        return run_end(second.next, second.kind);
      }
    }
    if (first.kind == Kind::space || first.kind == Kind::newline) return space_end(pos);
    return run_end(first.next, first.kind);
  }

  [[nodiscard]] std::size_t llama3_end(std::size_t pos, const At& first) const {
    const At second = at(first.next);
    if (first.kind == Kind::letter) return run_end(first.next, Kind::letter);
    if ((first.kind == Kind::space || first.kind == Kind::other) && second.kind == Kind::letter) {
      return run_end(second.next, Kind::letter);
    }
    if (first.kind == Kind::number) {
      if (second.kind != Kind::number) return first.next;
      const At third = at(second.next);
      return third.kind == Kind::number ? third.next : second.next;
    }
    if (first.kind == Kind::other || (first.value == ' ' && second.kind == Kind::other)) {
      return run_end(run_end(first.next, Kind::other), Kind::newline);
    }
    // Whitespace: through the last line break of the run if there is one.
    std::size_t after_break = 0;
    std::size_t end = pos;
    for (At c = first; c.kind == Kind::space || c.kind == Kind::newline; c = at(end)) {
      end = c.next;
      if (c.kind == Kind::newline) after_break = end;
    }
    return after_break != 0 ? after_break : space_end(pos);
  }

  Pretokenizer kind_;
  std::string_view text_;
};

}  // namespace

std::optional<Pretokenizer> parse_pretokenizer(std::string_view name) {
  if (name == "gpt2") return Pretokenizer::gpt2;
  if (name == "llama3") return Pretokenizer::llama3;
  return std::nullopt;
}

void split_words(Pretokenizer kind, std::string_view text, std::vector<std::string_view>& words) {
  const Splitter splitter(kind, text);
  for (std::size_t pos = 0; pos < text.size();) {
    const std::size_t end = splitter.word_end(pos);
    words.push_back(text.substr(pos, end - pos));
    pos = end;
  }
}

}  // namespace vila
