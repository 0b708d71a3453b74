// How a weight matrix [N, K] is stored: the text form ("w4p16x8g128z"), and the sizes that follow from it.
// The one table of formats; docs/FORMATS.md draws the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vila {

inline constexpr std::int64_t kTileRows = 16;  ///< output rows of one packed tile = lanes of the logical vector

[[nodiscard]] constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

enum class WeightKind : std::uint8_t { f32p16, f16p16, w8p16x4, w4p16x8 };

/// How an int4 weight's zero is given: the constant 8, an integer per group, or an f16 offset per group (w = q*s + o).
enum class ZeroKind : std::uint8_t { none, u8, f16_offset };

struct WeightFormat {
  WeightKind kind = WeightKind::f32p16;
  int group = 0;  ///< columns per scale: 32, 64 or 128 for int formats; 0 = whole row (w8) or no scales (floats)
  ZeroKind zero = ZeroKind::none;

  /// Throws InvalidArgument naming the text and the known forms.
  static WeightFormat parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] bool is_integer() const { return kind == WeightKind::w8p16x4 || kind == WeightKind::w4p16x8; }

  [[nodiscard]] std::int64_t padded_n(std::int64_t n) const { return round_up(n, kTileRows); }
  /// Columns as stored: a multiple of the group (of 128 for whole-row w8, so that every kernel runs without tails).
  [[nodiscard]] std::int64_t padded_k(std::int64_t k) const;
  /// Columns that share one scale, never 0 for integer formats.
  [[nodiscard]] std::int64_t group_columns(std::int64_t k) const { return group > 0 ? group : padded_k(k); }
  [[nodiscard]] std::int64_t n_groups(std::int64_t k) const {
    return is_integer() ? padded_k(k) / group_columns(k) : 0;
  }
  /// Bytes of one tile of 16 rows, and of the whole packed matrix without scales.
  [[nodiscard]] std::int64_t tile_bytes(std::int64_t k) const;
  [[nodiscard]] std::int64_t packed_bytes(std::int64_t n, std::int64_t k) const {
    return padded_n(n) / kTileRows * tile_bytes(k);
  }

  bool operator==(const WeightFormat&) const = default;
};

}  // namespace vila
