// What matmul_q.h hands over to ARM with dotprod or i8mm (VILA_OWN_BLOCKS): the same sums in the same order, for 32
// registers of 128 bits. Decode takes activations by lane and two tiles at a time; prefill works in blocks of 4 rows x
// 8 outputs on repacked panels, whose inner step block_sdot.h or block_smmla.h adds. Not for whole-row scales.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

/// Columns k..k+3 and k+4..k+7 of a tile.
template <class Kind>
VILA_INLINE void load_octet(const std::uint8_t* w, W8& first, W8& second) {
  if constexpr (Kind::kColumnsPerLoad == 8) {
    const W4 nibbles = load_w4(w);
    first = low_nibbles(nibbles);
    second = high_nibbles(nibbles);
  } else {
    first = load_w8(w);
    second = load_w8(w + 64);
  }
}

/// Sixteen columns of NT tiles onto the sums of one row; the tiles' pointers move on.
template <class Kind, int NT>
VILA_INLINE void lane_dots(const std::uint8_t* (&w)[NT], A16 a, I32x16 (&sum)[NT]) {
  constexpr std::int64_t kOctet = 64 * (8 / Kind::kColumnsPerLoad);
  W8 first, second;
  VILA_UNROLL for (int t = 0; t < NT; ++t) {
    prefetch(w[t] + kPrefetchBytes);
    load_octet<Kind>(w[t], first, second);
    sum[t] = dot4_lane<0>(sum[t], first, a);
    sum[t] = dot4_lane<1>(sum[t], second, a);
    load_octet<Kind>(w[t] + kOctet, first, second);
    sum[t] = dot4_lane<2>(sum[t], first, a);
    sum[t] = dot4_lane<3>(sum[t], second, a);
    w[t] += 2 * kOctet;
  }
}

/// One row of tiles tile..tile+NT, weights straight from memory.
template <class Kind, int NT>
inline void stream_row(const MatmulQArgs& p, std::int64_t row, std::int64_t tile) {
  const std::int64_t groups = p.k_padded / p.group;
  const std::int64_t parts = p.group / kActivationGroup;
  const std::int8_t* a = p.a + row * p.k_padded;
  const float* a_scale = p.a_scale + row * groups * parts;
  const std::uint8_t* w[NT];
  F32x16 acc[NT];
  VILA_UNROLL for (int t = 0; t < NT; ++t) {
    w[t] = p.w + (tile + t) * tile_stride<Kind>(p.k_padded);
    acc[t] = zero_f32();
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    F32x16 dots[NT];
    VILA_UNROLL for (int t = 0; t < NT; ++t) dots[t] = zero_f32();
    for (std::int64_t part = 0; part < parts; ++part, a += kActivationGroup, ++a_scale) {
      I32x16 sum[NT];
      VILA_UNROLL for (int t = 0; t < NT; ++t) sum[t] = zero_i32();
      lane_dots<Kind, NT>(w, load_a16(a), sum);
      lane_dots<Kind, NT>(w, load_a16(a + 16), sum);
      const F32x16 scale = splat(*a_scale);
      VILA_UNROLL for (int t = 0; t < NT; ++t) dots[t] = fma(to_f32(sum[t]), scale, dots[t]);
    }
    VILA_UNROLL for (int t = 0; t < NT; ++t) {
      const std::int64_t at = ((tile + t) * groups + g) * 16;
      const F32x16 w_scale = load_f16(p.w_scale + at);
      const F32x16 offset = load_offset<Kind>(p, at, w_scale);
      acc[t] = finish_group<Kind>(acc[t], dots[t], w_scale, offset, weighted_at<Kind>(p, row, groups, g));
    }
  }
  VILA_UNROLL for (int t = 0; t < NT; ++t) store_tile(p.y + row * p.y_stride, p.bias, p.n, tile + t, acc[t]);
}

inline constexpr int kOwnRows = 4;                // of a block
inline constexpr std::int64_t kOwnColumns = 128;  // of a panel: 16 KiB in the first-level cache
inline constexpr int kOwnTiles = 8;               // that share a packing of activations
inline constexpr std::int64_t kMaxParts = kOwnColumns / kActivationGroup;

/// One group of columns of four rows, packed: activations, the scales of each part, the weighted sums.
struct PackedRows {
  alignas(64) std::int8_t a[kOwnRows * kOwnColumns];
  alignas(16) float scale[kMaxParts * kScaleFloats];
  alignas(16) float weighted[kOwnRows];
};

/// Rows that do not exist repeat the last one; their results are not written.
template <class Kind>
inline void pack_rows(const MatmulQArgs& p, std::int64_t row, std::int64_t g, PackedRows& packed) {
  const std::int64_t groups = p.k_padded / p.group;
  const std::int64_t parts = p.group / kActivationGroup;
  std::int64_t rows[kOwnRows];
  VILA_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    rows[r] = row + r < p.m ? row + r : p.m - 1;
    packed.weighted[r] = Kind::kColumnsPerLoad == 8 ? p.a_weighted[rows[r] * groups + g] : 0.0F;
  }
  const std::int8_t* a[kOwnRows];
  VILA_UNROLL for (int r = 0; r < kOwnRows; ++r) a[r] = p.a + rows[r] * p.k_padded + g * p.group;
  const std::int64_t columns = p.group;
  for (std::int64_t k = 0; k < columns; k += 16) {
    store_block_a(packed.a + kOwnRows * k, load_a16(a[0] + k), load_a16(a[1] + k), load_a16(a[2] + k),
                  load_a16(a[3] + k));
  }
  for (std::int64_t part = 0; part < parts; ++part) {
    const float* scale = p.a_scale + g * parts + part;
    float32x4_t four = vld1q_dup_f32(scale + rows[0] * groups * parts);
    four = vld1q_lane_f32(scale + rows[1] * groups * parts, four, 1);
    four = vld1q_lane_f32(scale + rows[2] * groups * parts, four, 2);
    four = vld1q_lane_f32(scale + rows[3] * groups * parts, four, 3);
    store_block_scale(packed.scale + part * kScaleFloats, four);
  }
}

/// Scales and offsets of NT tiles in one group, as f32.
template <int NT>
struct TileScales {
  alignas(16) float w_scale[16 * NT];
  alignas(16) float offset[16 * NT];
};

/// The bytes of one group of NT tiles in the order of block_dot, half a tile after the other.
template <class Kind, int NT>
inline void pack_weights(const MatmulQArgs& p, std::int64_t tile, std::int64_t g, std::uint8_t* panel,
                         TileScales<NT>& scales) {
  const std::int64_t groups = p.k_padded / p.group;
  constexpr std::int64_t kOctet = 64 * (8 / Kind::kColumnsPerLoad);
  for (int t = 0; t < NT; ++t) {
    const std::int64_t at = ((tile + t) * groups + g) * 16;
    const F32x16 w_scale = load_f16(p.w_scale + at);
    store(scales.w_scale + 16 * t, w_scale);
    store(scales.offset + 16 * t, load_offset<Kind>(p, at, w_scale));
    const std::uint8_t* w = p.w + (tile + t) * tile_stride<Kind>(p.k_padded) + g * p.group / 8 * kOctet;
    std::uint8_t* low = panel + t * p.group * 16;
    std::uint8_t* high = low + p.group * 8;
    for (std::int64_t k = 0; k < p.group; k += 8, w += kOctet, low += 64, high += 64) {
      W8 first, second;
      load_octet<Kind>(w, first, second);
      store_block_w(low, high, first, second);
      prefetch(w + kPrefetchBytes);
    }
  }
}

VILA_INLINE BlockF zero_block() {
  const float32x4_t f = vdupq_n_f32(0.0F);
  return {{f, f, f, f, f, f, f, f}};
}

/// Adds the sums over the parts of a group for four rows and eight outputs, activations times their scales.
VILA_INLINE void block_dots(BlockF& dots, const std::uint8_t* panel, const PackedRows& rows, std::int64_t parts) {
  const std::int8_t* a = rows.a;
  const float* scale = rows.scale;
  const int32x4_t i = vdupq_n_s32(0);
  do {
    Block sum = {{i, i, i, i, i, i, i, i}};
    block_dot(sum, panel, a);
    block_dot(sum, panel, a);
    block_scale(dots, sum, scale);
    scale += kScaleFloats;
  } while (--parts > 0);
}

/// Four outputs of a row: y = y (0 in the first group) + dots * w_scale + offset * weighted, as finish_group.
template <class Kind, int kRow, int kHalf>
VILA_INLINE void finish_part(float* y, bool first, const BlockF& dots, float32x4_t w_scale, float32x4_t offset,
                             float32x4_t weighted) {
  float32x4_t acc = first ? vdupq_n_f32(0.0F) : vld1q_f32(y + 4 * kHalf);
  acc = vfmaq_f32(acc, block_part<kRow, kHalf>(dots), w_scale);
  if constexpr (Kind::kColumnsPerLoad == 8) acc = vfmaq_laneq_f32(acc, offset, weighted, kRow);
  vst1q_f32(y + 4 * kHalf, acc);
}

/// finish_part for four rows and eight outputs; y holds a pointer for each row.
template <class Kind>
VILA_INLINE void finish_block(float* const (&y)[kOwnRows], bool first, const BlockF& dots, const float* w_scale,
                              const float* offset, const float* weighted) {
  const float32x4_t scales[2] = {vld1q_f32(w_scale), vld1q_f32(w_scale + 4)};
  const float32x4_t offsets[2] = {vld1q_f32(offset), vld1q_f32(offset + 4)};
  const float32x4_t four = vld1q_f32(weighted);
  finish_part<Kind, 0, 0>(y[0], first, dots, scales[0], offsets[0], four);
  finish_part<Kind, 0, 1>(y[0], first, dots, scales[1], offsets[1], four);
  finish_part<Kind, 1, 0>(y[1], first, dots, scales[0], offsets[0], four);
  finish_part<Kind, 1, 1>(y[1], first, dots, scales[1], offsets[1], four);
  finish_part<Kind, 2, 0>(y[2], first, dots, scales[0], offsets[0], four);
  finish_part<Kind, 2, 1>(y[2], first, dots, scales[1], offsets[1], four);
  finish_part<Kind, 3, 0>(y[3], first, dots, scales[0], offsets[0], four);
  finish_part<Kind, 3, 1>(y[3], first, dots, scales[1], offsets[1], four);
}

/// A block of which only some rows or outputs exist.
template <class Kind>
[[gnu::noinline]] void edge_block(float* y, std::int64_t y_stride, std::int64_t n_rows, std::int64_t n_columns,
                                  bool first, const std::uint8_t* panel, const PackedRows& rows, std::int64_t parts,
                                  const float* w_scale, const float* offset) {
  float part[kOwnRows * 8] = {};
  for (std::int64_t r = 0; r < n_rows; ++r) {
    for (std::int64_t c = 0; !first && c < n_columns; ++c) part[8 * r + c] = y[r * y_stride + c];
  }
  BlockF dots = zero_block();
  block_dots(dots, panel, rows, parts);
  finish_block<Kind>({part, part + 8, part + 16, part + 24}, false, dots, w_scale, offset, rows.weighted);
  for (std::int64_t r = 0; r < n_rows; ++r) {
    for (std::int64_t c = 0; c < n_columns; ++c) y[r * y_stride + c] = part[8 * r + c];
  }
}

/// Four rows times all outputs of NT tiles over one group; the float sums so far stand in y.
template <class Kind, int NT>
inline void own_rows(const MatmulQArgs& p, std::int64_t row, std::int64_t tile, std::int64_t g,
                     const std::uint8_t* panel, const PackedRows& rows, const TileScales<NT>& scales) {
  const std::int64_t parts = p.group / kActivationGroup;
  const std::int64_t panel_bytes = p.group * 8;
  const std::int64_t n_rows = p.m - row < kOwnRows ? p.m - row : kOwnRows;
  const std::int64_t n_columns = p.n - tile * 16 < 16 * NT ? p.n - tile * 16 : 16 * NT;
  float* first = p.y + row * p.y_stride + tile * 16;
  float* y[kOwnRows] = {first, first + p.y_stride, first + 2 * p.y_stride, first + 3 * p.y_stride};
  std::int64_t column = 0;
  for (; n_rows == kOwnRows && column + 8 <= n_columns; column += 8, panel += panel_bytes) {
    BlockF dots = zero_block();
    block_dots(dots, panel, rows, parts);
    if (g == 0) {
      finish_block<Kind>(y, true, dots, scales.w_scale + column, scales.offset + column, rows.weighted);
    } else {
      finish_block<Kind>(y, false, dots, scales.w_scale + column, scales.offset + column, rows.weighted);
    }
    VILA_UNROLL for (float*& pointer : y) pointer += 8;
  }
  for (; column < n_columns; column += 8, panel += panel_bytes) {
    edge_block<Kind>(first + column, p.y_stride, n_rows, n_columns - column < 8 ? n_columns - column : 8, g == 0, panel,
                     rows, parts, scales.w_scale + column, scales.offset + column);
  }
}

/// Adds the bias to the finished sums of NT tiles.
template <int NT>
inline void add_bias(const MatmulQArgs& p, std::int64_t tile) {
  for (std::int64_t row = 0; row < p.m; ++row) {
    float* y = p.y + row * p.y_stride;
    for (std::int64_t t = tile; t < tile + NT; ++t) {
      const std::int64_t left = p.n - 16 * t;
      store_tile(y, p.bias, p.n, t, left >= 16 ? load(y + 16 * t) : load_partial(y + 16 * t, static_cast<int>(left)));
    }
  }
}

/// All rows of tiles tile..tile+NT.
template <class Kind, int NT>
inline void own_tiles(const MatmulQArgs& p, std::int64_t tile) {
  alignas(64) std::uint8_t panel[kOwnColumns * 16 * NT];
  TileScales<NT> scales;
  PackedRows rows;
  for (std::int64_t g = 0; g < p.k_padded / p.group; ++g) {
    pack_weights<Kind, NT>(p, tile, g, panel, scales);
    for (std::int64_t row = 0; row < p.m; row += kOwnRows) {
      pack_rows<Kind>(p, row, g, rows);
      own_rows<Kind, NT>(p, row, tile, g, panel, rows, scales);
    }
  }
  if (p.bias != nullptr) add_bias<NT>(p, tile);
}

template <class Kind>
inline void own_matmul_q(const MatmulQArgs& p, Range tiles) {
  std::int64_t tile = tiles.begin;
  if (p.m >= kOwnRows) {
    for (; tile + kOwnTiles <= tiles.end; tile += kOwnTiles) own_tiles<Kind, kOwnTiles>(p, tile);
    for (; tile < tiles.end; ++tile) own_tiles<Kind, 1>(p, tile);
  } else {
    for (; tile + 2 <= tiles.end; tile += 2) {
      for (std::int64_t row = 0; row < p.m; ++row) stream_row<Kind, 2>(p, row, tile);
    }
    for (; tile < tiles.end; ++tile) {
      for (std::int64_t row = 0; row < p.m; ++row) stream_row<Kind, 1>(p, row, tile);
    }
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
