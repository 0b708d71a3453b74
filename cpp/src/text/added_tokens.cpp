#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace vila {
namespace {

/// `text` without the leading characters for which `drop` holds.
std::string_view strip_left(std::string_view text, bool (*drop)(char32_t)) {
  while (!text.empty()) {
    const DecodedChar c = decode_utf8(text, 0);
    if (!drop(c.value)) break;
    text.remove_prefix(c.size);
  }
  return text;
}

/// The last character of valid UTF-8 that is not empty.
DecodedChar last_char(std::string_view text) {
  std::size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xc0u) == 0x80u) --pos;
  return decode_utf8(text, pos);
}

std::string_view strip_right(std::string_view text, bool (*drop)(char32_t)) {
  while (!text.empty()) {
    const DecodedChar c = last_char(text);
    if (!drop(c.value)) break;
    text.remove_suffix(c.size);
  }
  return text;
}

}  // namespace

void TokenTrie::add(std::string_view content, std::int32_t value) {
  std::int32_t node = root();
  for (const char32_t c : to_utf32(content)) {
    std::int32_t next = step(node, c);
    if (next < 0) {
      next = static_cast<std::int32_t>(nodes_.size());
      nodes_.emplace_back();
      auto& children = nodes_[static_cast<std::size_t>(node)].children;
      children.insert(std::lower_bound(children.begin(), children.end(), std::pair(c, 0)), {c, next});
    }
    node = next;
  }
  auto& slot = nodes_[static_cast<std::size_t>(node)].value;
  if (slot < 0 && node != root()) slot = value;
}

std::int32_t TokenTrie::step(std::int32_t node, char32_t c) const {
  const auto& children = nodes_[static_cast<std::size_t>(node)].children;
  const auto found = std::lower_bound(children.begin(), children.end(), std::pair(c, 0));
  return found != children.end() && found->first == c ? found->second : -1;
}

SlowSplitter::SlowSplitter(std::span<const AddedToken> tokens) : tokens_(tokens) {
  for (const AddedToken& token : tokens) {
    by_content_.emplace(token.content, &token);
    trie_.add(token.content, token.id);
  }
}

std::int32_t SlowSplitter::id_of(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? -1 : found->second->id;
}

namespace {

/// The first and longest match among partial matches that are alive when one of them is complete. Written after what
/// transformers' Trie.split computes, one habit included: an earlier partial match that the current character has just
/// ended is still tried, from the character after it.
class TrieScan {
 public:
  TrieScan(const TokenTrie& trie, const std::u32string& text) : trie_(trie), text_(text) {}

  /// Pairs begin, end of the matches.
  std::vector<std::size_t> run() {
    for (std::size_t at = 0; at < text_.size(); ++at) {
      if (at < skip_) continue;
      if (advance(at)) alive_.clear();
      std::erase_if(alive_, [](const Partial& p) { return p.ended; });
      const std::int32_t node = trie_.step(TokenTrie::root(), text_[at]);
      if (at >= skip_ && node >= 0) alive_.push_back({at, node, false});
    }
    const auto complete =
        std::find_if(alive_.begin(), alive_.end(), [this](const Partial& p) { return trie_.value(p.node) >= 0; });
    if (complete != alive_.end()) add(complete->begin, text_.size());
    return matches_;
  }

 private:
  struct Partial {
    std::size_t begin;
    std::int32_t node;
    bool ended;
  };

  void add(std::size_t begin, std::size_t end) {
    matches_.push_back(begin);
    matches_.push_back(end);
  }

  /// Feeds the character at `at` to the partial matches; true when one was complete before it.
  bool advance(std::size_t at) {
    for (std::size_t i = 0; i < alive_.size(); ++i) {
      if (trie_.value(alive_[i].node) >= 0) {
        take_longest(i, at);
        return true;
      }
      const std::int32_t next = trie_.step(alive_[i].node, text_[at]);
      alive_[i].ended = next < 0;
      if (next >= 0) alive_[i].node = next;
    }
    return false;
  }

  /// Partial match `complete` has matched; an earlier one that still can match wins.
  void take_longest(std::size_t complete, std::size_t at) {
    for (std::size_t i = 0; i <= complete; ++i) {
      std::size_t pos = i < complete ? at + 1 : at;
      std::int32_t node = alive_[i].node;
      std::size_t end = trie_.value(node) >= 0 ? pos : 0;
      while (pos < text_.size() && (node = trie_.step(node, text_[pos])) >= 0) {
        ++pos;
        if (trie_.value(node) >= 0) end = pos;
      }
      if (end == 0) continue;
      skip_ = end;
      add(alive_[i].begin, end);
      return;
    }
  }

  const TokenTrie& trie_;
  const std::u32string& text_;
  std::vector<Partial> alive_;  // by begin
  std::vector<std::size_t> matches_;
  std::size_t skip_ = 0;
};

}  // namespace

std::vector<std::size_t> SlowSplitter::cuts(const std::u32string& text) const { return TrieScan(trie_, text).run(); }

void SlowSplitter::apply_flags(std::vector<std::string>& parts) const {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto found = by_content_.find(parts[i]);
    if (found == by_content_.end()) continue;
    const AddedToken& token = *found->second;
    // The conditions of single_word look at the neighbours as they were before stripping.
    const std::string left = i > 0 ? parts[i - 1] : "";
    const std::string right = i + 1 < parts.size() ? parts[i + 1] : "";
    if (token.rstrip && !right.empty()) parts[i + 1] = strip_left(right, is_python_space);
    if (token.lstrip && !left.empty()) parts[i - 1] = strip_right(left, is_python_space);
    if (token.single_word && !left.empty() && left.back() != ' ') {
      parts[i - 1] += token.content;
      parts[i].clear();
    } else if (token.single_word && !right.empty() && right.front() != ' ') {
      parts[i + 1].insert(0, token.content);
      parts[i].clear();
    }
  }
}

std::vector<SlowSplitter::Part> SlowSplitter::split(std::string_view text) const {
  const std::u32string characters = to_utf32(text);
  std::vector<std::size_t> bounds = cuts(characters);
  bounds.push_back(characters.size());
  std::vector<std::string> parts;
  std::size_t index = 0;  // of a character
  std::size_t pos = 0;    // of its first byte
  for (const std::size_t bound : bounds) {
    const std::size_t begin = pos;
    for (; index < bound; ++index) pos += decode_utf8(text, pos).size;
    if (pos > begin) parts.emplace_back(text.substr(begin, pos - begin));
  }
  apply_flags(parts);
  std::vector<Part> out;
  for (std::string& part : parts) {
    if (part.empty()) continue;
    const std::int32_t id = id_of(part);
    out.push_back({std::move(part), id});
  }
  return out;
}

FastSplitter::FastSplitter(std::span<const AddedToken> tokens) : tokens_(tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    (tokens[i].normalized ? normalized_ : raw_).add(tokens[i].content, static_cast<std::int32_t>(i));
  }
}

std::vector<FastSplitter::Part> FastSplitter::split(std::string_view text) const {
  std::vector<Part> first;
  split_once(raw_, text, first);
  std::vector<Part> parts;
  for (const Part& part : first) {
    if (part.id >= 0) {
      parts.push_back(part);
    } else {
      split_once(normalized_, part.text, parts);
    }
  }
  return parts;
}

void FastSplitter::split_once(const TokenTrie& trie, std::string_view text, std::vector<Part>& parts) const {
  std::size_t taken = 0;  // end of the last part
  const auto leave = [&](std::size_t end) {
    if (taken < end) parts.push_back({text.substr(taken, end - taken), -1});
  };
  for (std::size_t pos = 0; pos < text.size();) {
    // The longest token that begins here.
    const AddedToken* token = nullptr;
    std::size_t end = pos;
    std::int32_t node = TokenTrie::root();
    for (std::size_t at = pos; at < text.size();) {
      const DecodedChar c = decode_utf8(text, at);
      if ((node = trie.step(node, c.value)) < 0) break;
      at += c.size;
      if (trie.value(node) < 0) continue;
      token = &tokens_[static_cast<std::size_t>(trie.value(node))];
      end = at;
    }
    if (token == nullptr) {
      pos += decode_utf8(text, pos).size;
      continue;
    }
    const std::string_view before = text.substr(0, pos);
    const std::string_view after = text.substr(end);
    pos = end;
    const bool word_before = !before.empty() && is_word(last_char(before).value);
    const bool word_after = !after.empty() && is_word(decode_utf8(after, 0).value);
    if (token->single_word && (word_before || word_after)) continue;
    std::size_t begin = before.size();
    if (token->lstrip) begin = std::max(strip_right(before, is_space).size(), taken);
    if (token->rstrip) end += after.size() - strip_left(after, is_space).size();
    leave(begin);
    parts.push_back({text.substr(begin, std::max(end, begin) - begin), token->id});
    taken = end;
  }
  leave(text.size());
}

}  // namespace vila
