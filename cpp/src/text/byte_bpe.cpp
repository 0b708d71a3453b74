#include "text/byte_bpe.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "text/unicode.h"

namespace vila {
namespace {

constexpr std::size_t kShortWord = 48;  // up to here scanning all pairs is cheaper than keeping a heap
constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 for itself, the other 68 bytes in
/// ascending order as U+0100, U+0101, ...
std::optional<std::uint8_t> byte_of(char32_t c) {
  const auto printable = [](char32_t b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  if (c < 256) return printable(c) ? std::optional(static_cast<std::uint8_t>(c)) : std::nullopt;
  char32_t stand_in = 256;
  for (char32_t b = 0; b < 256; ++b) {
    if (printable(b)) continue;
    if (stand_in == c) return static_cast<std::uint8_t>(b);
    ++stand_in;
  }
  return std::nullopt;
}

}  // namespace

std::string from_byte_alphabet(std::string_view text) {
  std::string bytes;
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    const std::optional<std::uint8_t> byte = byte_of(c.value);
    if (c.status != Utf8Status::valid || !byte) return std::string(text);
    bytes.push_back(static_cast<char>(*byte));
    pos += c.size;
  }
  return bytes;
}

ByteBpe::ByteBpe(std::span<const std::string> pieces, std::span<const std::uint8_t> types,
                 std::span<const std::pair<std::int32_t, std::int32_t>> merges, bool ignore_merges,
                 std::vector<std::string>& problems)
    : merges_(merges.size()), ignore_merges_(ignore_merges) {
  ids_.reserve(pieces.size());
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (types[id] == 0 || types[id] == 5) continue;
    if (!ids_.emplace(pieces[id], static_cast<std::int32_t>(id)).second) {
      problems.push_back("piece " + std::to_string(id) + ": expected a new piece, got that of id " +
                         std::to_string(ids_.at(pieces[id])));
    }
  }
  for (std::size_t b = 0; b < 256; ++b) {
    const std::optional<std::int32_t> id = id_of(std::string(1, static_cast<char>(b)));
    if (!id) problems.push_back("expected a piece for every byte, got none for byte " + std::to_string(b));
    byte_ids_[b] = id.value_or(0);
  }
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    const auto size = static_cast<std::int64_t>(pieces.size());
    if (left < 0 || left >= size || right < 0 || right >= size) {
      problems.push_back("merge " + std::to_string(rank) + ": expected ids below " + std::to_string(size) + ", got " +
                         std::to_string(left) + " and " + std::to_string(right));
      continue;
    }
    joined = pieces[static_cast<std::size_t>(left)];
    joined += pieces[static_cast<std::size_t>(right)];
    if (const std::optional<std::int32_t> id = id_of(joined)) {
      merges_.put(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right),
                  {static_cast<std::int32_t>(rank), *id});
    } else {
      problems.push_back("merge " + std::to_string(rank) + ": expected its result to be a piece, got none for ids " +
                         std::to_string(left) + " and " + std::to_string(right));
    }
  }
}

std::optional<std::int32_t> ByteBpe::id_of(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

void ByteBpe::encode_word(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    if (const std::optional<std::int32_t> id = id_of(word)) {
      ids.push_back(*id);
      return;
    }
  }
  if (word.size() <= kShortWord) {
    merge_short(word, ids);
  } else {
    merge_long(word, ids);
  }
}

// The best pair (lowest rank, then leftmost) is merged until none is left: O(k^2) for k bytes.
void ByteBpe::merge_short(std::string_view word, std::vector<std::int32_t>& ids) const {
  std::array<std::int32_t, kShortWord> symbols{};
  std::array<Merge, kShortWord> pairs{};  // pairs[i] joins symbols i and i + 1
  std::size_t count = word.size();
  const auto pair_at = [&](std::size_t i) {
    const Merge* merge = merge_of(symbols[i], symbols[i + 1]);
    return merge != nullptr ? *merge : Merge{kNoRank, 0};
  };
  for (std::size_t i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<std::uint8_t>(word[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = pair_at(i);
  while (count > 1) {
    const auto pairs_end = pairs.begin() + static_cast<std::ptrdiff_t>(count - 1);
    const auto best =
        std::min_element(pairs.begin(), pairs_end, [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
    if (best->rank == kNoRank) break;
    const auto at = static_cast<std::size_t>(best - pairs.begin());
    symbols[at] = best->id;
    std::copy(symbols.begin() + at + 2, symbols.begin() + count, symbols.begin() + at + 1);
    std::copy(pairs.begin() + at + 1, pairs.begin() + (count - 1), pairs.begin() + at);
    --count;
    if (at > 0) pairs[at - 1] = pair_at(at - 1);
    if (at + 1 < count) pairs[at] = pair_at(at);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(count));
}

// The same order of merges with a heap over a linked list: O(k log k).
void ByteBpe::merge_long(std::string_view word, std::vector<std::int32_t>& ids) const {
  struct Symbol {
    std::int32_t id;  // -1: merged into its left neighbour
    std::int64_t previous, next;
  };
  struct Candidate {
    Merge merge;
    std::int64_t left;
    std::int32_t left_id, right_id;
  };
  const auto worse = [](const Candidate& a, const Candidate& b) {
    return a.merge.rank != b.merge.rank ? a.merge.rank > b.merge.rank : a.left > b.left;
  };
  const auto size = static_cast<std::int64_t>(word.size());
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (std::int64_t i = 0; i < size; ++i) {
    const auto byte = static_cast<std::uint8_t>(word[static_cast<std::size_t>(i)]);
    symbols.push_back({byte_ids_[byte], i - 1, i + 1 < size ? i + 1 : -1});
  }
  std::vector<Candidate> heap;
  const auto offer = [&](std::int64_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const std::int32_t left_id = symbols[left].id;
    const std::int32_t right_id = symbols[symbols[left].next].id;
    const Merge* merge = merge_of(left_id, right_id);
    if (merge == nullptr) return;
    heap.push_back({*merge, left, left_id, right_id});
    std::push_heap(heap.begin(), heap.end(), worse);
  };
  for (std::int64_t i = 0; i + 1 < size; ++i) offer(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), worse);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    if (left.id != best.left_id || left.next < 0 || symbols[left.next].id != best.right_id) continue;  // outdated
    Symbol& right = symbols[left.next];
    left.id = best.merge.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
  for (std::int64_t i = 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace vila
