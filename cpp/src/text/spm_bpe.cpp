#include "text/spm_bpe.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/unicode.h"

namespace vila {
namespace {

/// 0x41 for "<0x41>"; nothing for another form.
std::optional<std::uint8_t> parse_byte_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return std::nullopt;
  std::uint8_t value = 0;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (error != std::errc{} || end != piece.data() + 5) return std::nullopt;
  return value;
}

/// SentencePiece's identity normalisation. `text` is not empty.
std::string normalize(std::string_view text, const SpmBpe::Options& options) {
  std::string out;
  if (options.remove_extra_whitespaces) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.empty()) return out;
  }
  out.reserve(text.size() + text.size() / 2);
  if (options.add_dummy_prefix) out += kSpaceSymbol;
  bool after_space = options.remove_extra_whitespaces;
  for (const char c : text) {
    if (c != ' ') {
      out.push_back(c);
    } else if (!after_space) {
      out += kSpaceSymbol;
    }
    after_space = options.remove_extra_whitespaces && c == ' ';
  }
  if (options.remove_extra_whitespaces) {
    while (std::string_view(out).ends_with(kSpaceSymbol)) out.resize(out.size() - kSpaceSymbol.size());
  }
  return out;
}

}  // namespace

/// State of one call of encode(): symbols are a linked list over `text`, pairs that could merge are in a heap.
struct SpmBpe::Work {
  struct Symbol {
    std::size_t begin, size;  // size 0: merged into its left neighbour
    std::int32_t previous, next;
    bool frozen;
  };
  struct Pair {
    float score;
    std::int32_t left, right;
    std::size_t size;  // of both together: tells outdated pairs
    /// Heap order: lower score first to leave the top, then the one further right.
    bool operator<(const Pair& other) const { return score != other.score ? score < other.score : left > other.left; }
  };

  std::string_view text;
  std::vector<Symbol> symbols;
  std::vector<Pair> heap;
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> halves;  // of unused pieces

  [[nodiscard]] std::string_view piece(std::int32_t i) const {
    return text.substr(symbols[static_cast<std::size_t>(i)].begin, symbols[static_cast<std::size_t>(i)].size);
  }
};

SpmBpe::SpmBpe(std::span<const std::string> pieces, std::span<const float> scores, std::span<const std::uint8_t> types,
               std::vector<std::string>& problems)
    : pieces_(pieces), scores_(scores), types_(types), user_defined_(256) {
  std::size_t n_unknown = 0;
  std::size_t n_bytes = 0;
  std::size_t n_joints = 0;
  const auto report = [&](std::size_t id, const std::string& what) {
    problems.push_back("piece " + std::to_string(id) + ": " + what);
  };
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto type = static_cast<PieceType>(types[i]);
    const std::string& piece = pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    if (type == PieceType::added || (type == PieceType::unused && piece.empty())) continue;
    if (piece.empty()) report(i, "expected some text, got none");
    if (!is_valid_utf8(piece)) report(i, "expected UTF-8, got other bytes");
    if (!std::isfinite(scores[i])) report(i, "expected a finite score, got none");
    const bool mergeable = type == PieceType::normal || type == PieceType::user_defined || type == PieceType::unused;
    if (mergeable_.contains(piece) || reserved_.contains(piece))
      report(i, "expected a new piece, got \"" + piece + "\" again");
    (mergeable ? mergeable_ : reserved_).emplace(piece, id);
    if (mergeable) {
      n_joints += piece.size();
      longest_piece_ = std::max(longest_piece_, piece.size());
      has_unused_ = has_unused_ || type == PieceType::unused;
    }
    if (type == PieceType::unknown) {
      ++n_unknown;
      unknown_id_ = id;
    } else if (type == PieceType::byte) {
      ++n_bytes;
      if (const std::optional<std::uint8_t> byte = parse_byte_piece(piece)) {
        byte_ids_[*byte] = id;
      } else {
        report(i, "expected a byte piece like <0x0A>, got \"" + piece + "\"");
      }
    } else if (type == PieceType::user_defined && !piece.empty()) {
      user_defined_[static_cast<std::uint8_t>(piece[0])].push_back(piece);
    }
  }
  if (n_unknown != 1) problems.push_back("expected one unknown piece, got " + std::to_string(n_unknown));
  if (n_bytes != 0 && n_bytes != 256)
    problems.push_back("expected 0 or 256 byte pieces, got " + std::to_string(n_bytes));
  byte_fallback_ = n_bytes == 256;
  for (auto& bucket : user_defined_) {
    std::sort(bucket.begin(), bucket.end(), [](auto a, auto b) { return a.size() > b.size(); });
  }
  joints_ = PairMap<bool>(n_joints);
  for (const auto& [piece, id] : mergeable_) {
    char32_t left = 0;
    for (std::size_t pos = 0; pos < piece.size();) {
      const DecodedChar c = decode_utf8(piece, pos);
      if (pos > 0) joints_.put(left, c.value, true);
      left = c.value;
      pos += c.size;
    }
  }
}

std::int32_t SpmBpe::piece_id(std::string_view piece) const {
  if (const auto found = reserved_.find(piece); found != reserved_.end()) return found->second;
  const auto found = mergeable_.find(piece);
  return found == mergeable_.end() ? unknown_id_ : found->second;
}

std::uint8_t SpmBpe::byte_of(std::int32_t id) const {
  return parse_byte_piece(pieces_[static_cast<std::size_t>(id)]).value_or(0);
}

/// A user-defined piece (the longest, frozen) or one character.
std::size_t SpmBpe::symbol_size(std::string_view text, std::size_t pos, bool* frozen) const {
  for (const std::string_view piece : user_defined_[static_cast<std::uint8_t>(text[pos])]) {
    if (text.substr(pos).starts_with(piece)) {
      *frozen = true;
      return piece.size();
    }
  }
  *frozen = false;
  return decode_utf8(text, pos).size;
}

/// Whether a piece may span the place before `pos`, whose left neighbour is `left`.
bool SpmBpe::can_join(std::string_view text, std::size_t pos, char32_t left) const {
  return joints_.find(left, decode_utf8(text, pos).value) != nullptr;
}

SpmIds SpmBpe::encode(std::string_view text, const Options& options) const {
  SpmIds out;
  if (text.empty()) return out;
  const std::string normalized = normalize(text, options);
  Work work;
  work.text = normalized;
  const auto finish_run = [&] {
    merge(work);
    for (std::int32_t i = work.symbols.empty() ? -1 : 0; i >= 0; i = work.symbols[static_cast<std::size_t>(i)].next) {
      resegment(work, work.piece(i), out);
    }
    work.symbols.clear();
  };
  bool joinable = true;
  for (std::size_t pos = 0; pos < normalized.size();) {
    // Unused pieces are split as they were found anywhere in the text, so the text may not be cut where there are any.
    if (!joinable && !has_unused_) finish_run();
    bool frozen = false;
    const std::size_t size = symbol_size(normalized, pos, &frozen);
    const auto index = static_cast<std::int32_t>(work.symbols.size());
    if (index > 0) work.symbols.back().next = index;
    work.symbols.push_back({pos, size, index - 1, -1, frozen});
    const char32_t last = frozen ? 0 : decode_utf8(normalized, pos).value;
    pos += size;
    joinable = !frozen && pos < normalized.size() && can_join(normalized, pos, last);
  }
  finish_run();
  return out;
}

void SpmBpe::offer(Work& work, std::int32_t left, std::int32_t right) const {
  if (left < 0 || right < 0) return;
  const auto& a = work.symbols[static_cast<std::size_t>(left)];
  const auto& b = work.symbols[static_cast<std::size_t>(right)];
  const std::size_t size = a.size + b.size;
  if (a.frozen || b.frozen || size > longest_piece_) return;
  const std::string_view piece = work.text.substr(a.begin, size);
  const auto found = mergeable_.find(piece);
  if (found == mergeable_.end()) return;
  const auto id = static_cast<std::size_t>(found->second);
  work.heap.push_back({scores_[id], left, right, size});
  std::push_heap(work.heap.begin(), work.heap.end());
  if (types_[id] == static_cast<std::uint8_t>(PieceType::unused)) {
    work.halves.insert_or_assign(piece, std::pair(work.piece(left), work.piece(right)));
  }
}

/// Merges the pair with the highest score, leftmost first, until none is left.
void SpmBpe::merge(Work& work) const {
  const auto count = static_cast<std::int32_t>(work.symbols.size());
  for (std::int32_t i = 1; i < count; ++i) offer(work, i - 1, i);
  while (!work.heap.empty()) {
    std::pop_heap(work.heap.begin(), work.heap.end());
    const Work::Pair best = work.heap.back();
    work.heap.pop_back();
    auto& left = work.symbols[static_cast<std::size_t>(best.left)];
    auto& right = work.symbols[static_cast<std::size_t>(best.right)];
    if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;  // outdated
    left.size = best.size;
    left.next = right.next;
    if (right.next >= 0) work.symbols[static_cast<std::size_t>(right.next)].previous = best.left;
    right.size = 0;
    offer(work, left.previous, best.left);
    offer(work, best.left, left.next);
  }
}

/// An unused piece is replaced by the two halves it was merged from.
void SpmBpe::resegment(Work& work, std::string_view piece, SpmIds& out) const {
  const std::int32_t id = piece_id(piece);
  if (types_[static_cast<std::size_t>(id)] == static_cast<std::uint8_t>(PieceType::unused)) {
    if (const auto found = work.halves.find(piece); found != work.halves.end()) {
      const auto [left, right] = found->second;
      resegment(work, left, out);
      resegment(work, right, out);
      return;
    }
  }
  emit(piece, out);
}

void SpmBpe::emit(std::string_view piece, SpmIds& out) const {
  const std::int32_t id = piece_id(piece);
  if (id != unknown_id_) {
    out.ids.push_back(id);
  } else if (byte_fallback_) {
    for (const char c : piece) out.ids.push_back(byte_ids_[static_cast<std::uint8_t>(c)]);
  } else if (!out.unknown.empty() && out.unknown.back().first + 1 == out.ids.size()) {
    out.unknown.back().second += piece;  // a run of unknown characters is one token
  } else {
    out.unknown.emplace_back(out.ids.size(), piece);
    out.ids.push_back(id);
  }
}

}  // namespace vila
