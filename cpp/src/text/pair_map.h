// An open-addressing hash table from a pair of 32-bit numbers to a small value, filled once and then only read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vila {

/// `Value` is trivially copyable. Immutable reads are thread-safe.
template <class Value>
class PairMap {
 public:
  /// Room for `count` entries; more than that must not be put in.
  explicit PairMap(std::size_t count = 0) : slots_(std::bit_ceil(2 * count + 2)) {}

  /// Inserts or overwrites.
  void put(std::uint32_t left, std::uint32_t right, const Value& value) {
    Slot& slot = slots_[locate(key_of(left, right))];
    slot = {key_of(left, right), value};
  }

  /// The value, or null. The pointer lives as long as the map.
  [[nodiscard]] const Value* find(std::uint32_t left, std::uint32_t right) const {
    const Slot& slot = slots_[locate(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }

 private:
  static constexpr std::uint64_t kEmpty =
      ~std::uint64_t{0};  // (2^32-1, 2^32-1) is neither a pair of ids nor of characters
  struct Slot {
    std::uint64_t key = kEmpty;
    Value value{};
  };

  [[nodiscard]] static std::uint64_t key_of(std::uint32_t left, std::uint32_t right) {
    return (std::uint64_t{left} << 32) | right;
  }

  [[nodiscard]] std::size_t locate(std::uint64_t key) const {
    // Fibonacci hashing: the golden ratio's multiples spread evenly over 2^64; the high half is folded in.
    const std::uint64_t mixed = (key ^ (key >> 32)) * 0x9e3779b97f4a7c15ULL;
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = static_cast<std::size_t>(mixed >> 32) & mask;
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace vila
