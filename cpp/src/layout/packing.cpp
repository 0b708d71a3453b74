#include "layout/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/half.h"
#include "vila/error.h"

namespace vila {
namespace {

constexpr int kNeutralZero = 8;  // the zero of int4 without zero points

template <class T>
void check_size(const char* what, std::span<const T> data, std::int64_t expected) {
  if (static_cast<std::int64_t>(data.size()) != expected) {
    throw InvalidArgument("[pack] " + std::string(what) + ": expected " + std::to_string(expected) + " values, got " +
                          std::to_string(data.size()));
  }
}

// Writes one quantised value where the tile has it (docs/FORMATS.md).
void put_w8(std::uint8_t* tile, std::int64_t row, std::int64_t column, int q) {
  tile[column / 4 * 64 + 4 * row + column % 4] = static_cast<std::uint8_t>(q);
}
void put_w4(std::uint8_t* tile, std::int64_t row, std::int64_t column, int q) {
  std::uint8_t& byte = tile[column / 8 * 64 + 4 * row + column % 4];
  byte = static_cast<std::uint8_t>(column % 8 < 4 ? (byte & 0xf0) | q : (byte & 0x0f) | (q << 4));
}
int get_w8(const std::uint8_t* tile, std::int64_t row, std::int64_t column) {
  return static_cast<std::int8_t>(tile[column / 4 * 64 + 4 * row + column % 4]);
}
int get_w4(const std::uint8_t* tile, std::int64_t row, std::int64_t column) {
  const std::uint8_t byte = tile[column / 8 * 64 + 4 * row + column % 4];
  return column % 8 < 4 ? byte & 15 : byte >> 4;
}

struct GroupScale {
  std::uint16_t scale_bits = 0;  // f16
  int zero = 0;
};

// The scale (and zero) of one row's group; 0 lies inside the range so that padding and zeros stay exact.
GroupScale choose_scale(std::span<const float> group, const WeightFormat& format) {
  float low = 0;
  float high = 0;
  for (const float value : group) {
    if (!std::isfinite(value)) throw InvalidArgument("[pack] expected finite weights, got " + std::to_string(value));
    low = std::min(low, value);
    high = std::max(high, value);
  }
  GroupScale result;
  float scale = 0;
  if (format.kind == WeightKind::w8p16x4) {
    scale = std::max(high, -low) / 127.0F;
  } else if (format.zero == ZeroKind::u8) {
    scale = (high - low) / 15.0F;
  } else {
    scale = (high > -low ? high : low) / -8.0F;  // the extreme value becomes -8
  }
  result.scale_bits = f32_to_f16(scale);
  const float rounded = f16_to_f32(result.scale_bits);
  if (!std::isfinite(rounded))
    throw InvalidArgument("[pack] expected a scale within f16, got " + std::to_string(scale));
  if (format.kind == WeightKind::w4p16x8) {
    result.zero = kNeutralZero;
    if (format.zero == ZeroKind::u8) {
      result.zero = rounded > 0 ? std::clamp(static_cast<int>(std::nearbyint(-low / rounded)), 0, 15) : 0;
    }
  }
  return result;
}

int quantise(float value, float scale, int zero, const WeightFormat& format) {
  const float steps = scale != 0 ? std::nearbyint(value / scale) : 0.0F;
  if (format.kind == WeightKind::w8p16x4) return static_cast<int>(std::clamp(steps, -127.0F, 127.0F));
  return static_cast<int>(std::clamp(steps + static_cast<float>(zero), 0.0F, 15.0F));
}

PackedMatrix empty_matrix(std::int64_t n, std::int64_t k, const WeightFormat& format) {
  if (n < 1 || k < 1) {
    throw InvalidArgument("[pack] expected at least 1 x 1, got " + std::to_string(n) + " x " + std::to_string(k));
  }
  PackedMatrix packed;
  packed.format = format;
  packed.n = n;
  packed.k = k;
  packed.values.resize(static_cast<std::size_t>(format.packed_bytes(n, k)));
  const auto groups = static_cast<std::size_t>(format.padded_n(n) * format.n_groups(k));
  if (format.is_integer()) packed.scales.resize(groups);
  if (format.zero == ZeroKind::u8) packed.zeros.resize(groups);
  if (format.zero == ZeroKind::f16_offset) packed.offsets.resize(groups);
  return packed;
}

void pack_floats(std::span<const float> w, PackedMatrix& packed) {
  const std::int64_t k = packed.k;
  for (std::int64_t row = 0; row < packed.n; ++row) {
    for (std::int64_t column = 0; column < k; ++column) {
      const auto at = static_cast<std::size_t>((row / kTileRows * k + column) * kTileRows + row % kTileRows);
      const float value = w[static_cast<std::size_t>(row * k + column)];
      if (packed.format.kind == WeightKind::f32p16) {
        std::memcpy(packed.values.data() + 4 * at, &value, 4);
      } else {
        const std::uint16_t half = f32_to_f16(value);
        std::memcpy(packed.values.data() + 2 * at, &half, 2);
      }
    }
  }
}

// Index of a row's group among the scales.
std::size_t scale_index(const PackedMatrix& packed, std::int64_t row, std::int64_t group) {
  return static_cast<std::size_t>((row / kTileRows * packed.format.n_groups(packed.k) + group) * kTileRows +
                                  row % kTileRows);
}

void put(PackedMatrix& packed, std::int64_t row, std::int64_t column, int q) {
  std::uint8_t* tile = packed.values.data() + row / kTileRows * packed.format.tile_bytes(packed.k);
  (packed.format.kind == WeightKind::w8p16x4 ? put_w8 : put_w4)(tile, row % kTileRows, column, q);
}

}  // namespace

PackedMatrix pack_matrix(std::span<const float> w, std::int64_t n, std::int64_t k, const WeightFormat& format) {
  PackedMatrix packed = empty_matrix(n, k, format);
  check_size("w", w, n * k);
  if (!format.is_integer()) {
    pack_floats(w, packed);
    return packed;
  }
  if (format.zero == ZeroKind::f16_offset) {
    throw InvalidArgument("[pack] expected a format that rounding can produce, got " + format.to_string() +
                          ", which exists to import AWQ");
  }
  const std::int64_t group_columns = format.group_columns(k);
  for (std::int64_t row = 0; row < n; ++row) {
    for (std::int64_t group = 0; group < format.n_groups(k); ++group) {
      const std::int64_t begin = group * group_columns;
      const std::int64_t end = std::min(begin + group_columns, k);
      const GroupScale scale = choose_scale(
          w.subspan(static_cast<std::size_t>(row * k + begin), static_cast<std::size_t>(end - begin)), format);
      const std::size_t at = scale_index(packed, row, group);
      packed.scales[at] = scale.scale_bits;
      if (format.zero == ZeroKind::u8) packed.zeros[at] = static_cast<std::uint8_t>(scale.zero);
      const float step = f16_to_f32(scale.scale_bits);
      for (std::int64_t column = begin; column < begin + group_columns; ++column) {
        const float value = column < k ? w[static_cast<std::size_t>(row * k + column)] : 0.0F;
        put(packed, row, column, quantise(value, step, scale.zero, format));
      }
    }
  }
  return packed;
}

PackedMatrix pack_int4(std::span<const std::uint8_t> q, std::span<const std::uint16_t> scales,
                       std::span<const std::uint8_t> zeros, std::span<const std::uint16_t> offsets, std::int64_t n,
                       std::int64_t k, const WeightFormat& format) {
  if (format.kind != WeightKind::w4p16x8) {
    throw InvalidArgument("[pack] expected a w4p16x8 format, got " + format.to_string());
  }
  if (k % format.group != 0) {
    throw InvalidArgument("[pack] columns: expected a multiple of the group " + std::to_string(format.group) +
                          ", got " + std::to_string(k));
  }
  PackedMatrix packed = empty_matrix(n, k, format);
  const std::int64_t groups = format.n_groups(k);
  check_size("q", q, n * k);
  check_size("scales", scales, n * groups);
  check_size("zeros", zeros, format.zero == ZeroKind::u8 ? n * groups : 0);
  check_size("offsets", offsets, format.zero == ZeroKind::f16_offset ? n * groups : 0);
  for (std::int64_t row = 0; row < n; ++row) {
    for (std::int64_t column = 0; column < k; ++column) {
      const int value = q[static_cast<std::size_t>(row * k + column)];
      if (value > 15) throw InvalidArgument("[pack] q: expected values in 0..15, got " + std::to_string(value));
      put(packed, row, column, value);
    }
    for (std::int64_t group = 0; group < groups; ++group) {
      const auto from = static_cast<std::size_t>(row * groups + group);
      const std::size_t to = scale_index(packed, row, group);
      packed.scales[to] = scales[from];
      if (!packed.zeros.empty()) {
        if (zeros[from] > 15)
          throw InvalidArgument("[pack] zeros: expected values in 0..15, got " + std::to_string(zeros[from]));
        packed.zeros[to] = zeros[from];
      }
      if (!packed.offsets.empty()) packed.offsets[to] = offsets[from];
    }
  }
  return packed;
}

std::vector<float> unpack_matrix(const PackedMatrix& p) {
  const WeightFormat& format = p.format;
  check_size<std::uint8_t>("values", p.values, format.packed_bytes(p.n, p.k));
  const std::int64_t groups = format.padded_n(p.n) * format.n_groups(p.k);
  check_size<std::uint16_t>("scales", p.scales, groups);
  check_size<std::uint8_t>("zeros", p.zeros, format.zero == ZeroKind::u8 ? groups : 0);
  check_size<std::uint16_t>("offsets", p.offsets, format.zero == ZeroKind::f16_offset ? groups : 0);
  std::vector<float> w(static_cast<std::size_t>(p.n * p.k));
  for (std::int64_t row = 0; row < p.n; ++row) {
    const std::uint8_t* tile = p.values.data() + row / kTileRows * format.tile_bytes(p.k);
    for (std::int64_t column = 0; column < p.k; ++column) {
      float& out = w[static_cast<std::size_t>(row * p.k + column)];
      if (!format.is_integer()) {
        const auto at = static_cast<std::size_t>(column * kTileRows + row % kTileRows);
        if (format.kind == WeightKind::f32p16) {
          std::memcpy(&out, tile + 4 * at, 4);
        } else {
          std::uint16_t half = 0;
          std::memcpy(&half, tile + 2 * at, 2);
          out = f16_to_f32(half);
        }
        continue;
      }
      const std::size_t at = scale_index(p, row, column / format.group_columns(p.k));
      const float scale = f16_to_f32(p.scales[at]);
      if (format.kind == WeightKind::w8p16x4) {
        out = static_cast<float>(get_w8(tile, row % kTileRows, column)) * scale;
      } else {
        const int q = get_w4(tile, row % kTileRows, column);
        if (format.zero == ZeroKind::f16_offset) {
          out = static_cast<float>(q) * scale + f16_to_f32(p.offsets[at]);
        } else {
          const int zero = format.zero == ZeroKind::u8 ? p.zeros[at] : kNeutralZero;
          out = static_cast<float>(q - zero) * scale;
        }
      }
    }
  }
  return w;
}

}  // namespace vila
