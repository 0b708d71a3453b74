// The only home of packed layouts: quantises, packs and unpacks weight matrices. Used at conversion and in tests;
// at run time the kernels read the packed bytes in place.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "layout/weight_format.h"

namespace vila {

/// A packed matrix [n, k] and what belongs to it; shapes as in docs/FORMATS.md.
struct PackedMatrix {
  WeightFormat format;
  std::int64_t n = 0, k = 0;
  std::vector<std::uint8_t> values;    ///< packed_bytes(n, k)
  std::vector<std::uint16_t> scales;   ///< f16 bits [Np/16, n_groups, 16]; empty for floats
  std::vector<std::uint8_t> zeros;     ///< [Np/16, n_groups, 16], ZeroKind::u8 only
  std::vector<std::uint16_t> offsets;  ///< f16 bits [Np/16, n_groups, 16], ZeroKind::f16_offset only
};

/// Packs row-major f32 `w` [n, k]; integer formats are quantised round-to-nearest:
/// w8: s = max|w| / 127; w4 (ZeroKind::none): s = signed extreme / -8; w4 (u8): s = (max - min) / 15, z = round(-min /
/// s), with 0 inside [min, max]. Scales are rounded to f16 first and the values quantised with the rounded scale.
/// ZeroKind::f16_offset cannot be produced by rounding (InvalidArgument): it exists to import AWQ.
PackedMatrix pack_matrix(std::span<const float> w, std::int64_t n, std::int64_t k, const WeightFormat& format);

/// Packs already quantised int4 values without touching them. `q` [n, k] in 0..15, `scales` f16 bits [n, n_groups];
/// exactly one of `zeros` (u8 [n, n_groups]) and `offsets` (f16 bits [n, n_groups]) where the format asks for it.
/// k must be a multiple of the group. Throws InvalidArgument for sizes or values out of range.
PackedMatrix pack_int4(std::span<const std::uint8_t> q, std::span<const std::uint16_t> scales,
                       std::span<const std::uint8_t> zeros, std::span<const std::uint16_t> offsets, std::int64_t n,
                       std::int64_t k, const WeightFormat& format);

/// The matrix [n, k] that the packed bytes stand for, in f32 (exact for f32/f16; q*s evaluated in f32 otherwise).
std::vector<float> unpack_matrix(const PackedMatrix& packed);

}  // namespace vila
