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

inline constexpr int kOwnRows = 4;  // of a block
inline constexpr int kOwnOutputs = 8;
inline constexpr std::int64_t kOwnColumns = 128;  // of a panel: 16 KiB in the first-level cache
inline constexpr int kOwnTiles = 8;               // that share a packing of activations
inline constexpr int kMaxParts = kOwnColumns / kActivationGroup;

VILA_INLINE Block zero_block() {
  Block sum;
  VILA_UNROLL for (int i = 0; i < 8; i += 2) load_zeros(sum.v[i], sum.v[i + 1]);
  return sum;
}

/// One group of columns of four rows, packed: activations, the scales of each part, the weighted sums.
struct PackedRows {
  alignas(64) std::int8_t a[kOwnRows * kOwnColumns];
  alignas(64) float scale[kScaleFloats * kMaxParts];
  alignas(16) float weighted[kOwnRows];
};

/// The scales of a row's parts in one group; those that do not exist are 0.
template <int kParts>
VILA_INLINE float32x4_t load_scales(const float* p) {
  if constexpr (kParts == 4) return vld1q_f32(p);
  float32x4_t scales = vsetq_lane_f32(p[0], vdupq_n_f32(0.0F), 0);
  if constexpr (kParts == 2) scales = vsetq_lane_f32(p[1], scales, 1);
  return scales;
}

/// Rows that do not exist repeat the last one; their results are not written.
template <class Kind, int kParts>
VILA_INLINE void pack_rows(const MatmulQArgs& p, std::int64_t row, std::int64_t g, PackedRows& packed) {
  const std::int64_t groups = p.k_padded / p.group;
  const std::int8_t* a[kOwnRows];
  float32x4_t scales[kOwnRows];
  VILA_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    const std::int64_t at = (row + r < p.m ? row + r : p.m - 1) * groups + g;
    a[r] = p.a + at * (kParts * kActivationGroup);
    scales[r] = load_scales<kParts>(p.a_scale + at * kParts);
    if constexpr (Kind::kColumnsPerLoad == 8) packed.weighted[r] = p.a_weighted[at];
  }
  store_block_scales(packed.scale, scales[0], scales[1], scales[2], scales[3]);
  std::int8_t* to = packed.a;
  VILA_UNROLL for (int k = 0; k < kParts * kActivationGroup; k += 32) {
    A16 low[kOwnRows], high[kOwnRows];
    VILA_UNROLL for (int r = 0; r < kOwnRows; ++r) {
      low[r] = load_a16(a[r] + k);
      high[r] = load_a16(a[r] + k + 16);
    }
    store_block_a(to, low[0], low[1], low[2], low[3]);
    store_block_a(to + 64, high[0], high[1], high[2], high[3]);
    advance(to, 128);
  }
}

/// One group of columns of NT tiles, packed: their bytes in the order of block_dot, half a tile after the other, and
/// the scales and offsets of each half.
template <int NT>
struct PackedTiles {
  alignas(64) std::uint8_t bytes[kOwnColumns * 16 * NT];
  alignas(64) float scales[2 * NT][2 * kOwnOutputs];
};

template <class Kind, int kParts, int NT>
inline void pack_tiles(const MatmulQArgs& p, std::int64_t tile, std::int64_t g, PackedTiles<NT>& packed) {
  constexpr std::int64_t kOctet = 64 * (8 / Kind::kColumnsPerLoad);
  constexpr int kColumns = kParts * kActivationGroup;
  const std::int64_t groups = p.k_padded / kColumns;
  std::uint8_t* low = packed.bytes;
  for (int t = 0; t < NT; ++t) {
    const std::int64_t at = ((tile + t) * groups + g) * 16;
    const F32x16 w_scale = load_f16(p.w_scale + at);
    const F32x16 offset = load_offset<Kind>(p, at, w_scale);
    VILA_UNROLL for (int i = 0; i < 4; ++i) {
      float* half = packed.scales[2 * t + i / 2] + i % 2 * 4;
      vst1q_f32(half, w_scale.v[i]);
      vst1q_f32(half + kOwnOutputs, offset.v[i]);
    }
    const std::uint8_t* w = p.w + (tile + t) * tile_stride<Kind>(p.k_padded) + g * (kColumns / 8 * kOctet);
    std::uint8_t* high = low + kColumns * kOwnOutputs;
    VILA_UNROLL
    for (int k = 0; k < kColumns; k += 8) {
      W8 first, second;
      prefetch(w + kPrefetchBytes);
      load_octet<Kind>(w, first, second);
      w += kOctet;
      store_block_w(low, high, first, second);
    }
    low = high;
  }
}

/// Adds part kPart and those after it to the scaled sums of a block.
template <int kPart, int kParts>
VILA_INLINE void block_parts(BlockF& dots, const std::uint8_t*& panel, const std::int8_t* a,
                             const BlockScales& scales) {
  Block sum = zero_block();
  block_dot(sum, panel, a);
  block_dot(sum, panel, a);
  block_scale<kPart>(dots, sum, scales);
  if constexpr (kPart + 1 < kParts) block_parts<kPart + 1, kParts>(dots, panel, a, scales);
}

/// Eight outputs of a row: y = y + dots * w_scale + offset * weighted, as finish_group.
template <class Kind, int kRow>
VILA_INLINE void finish_row(float*& y, const BlockF& dots, const float32x4x4_t& scales, float32x4_t weighted) {
  float32x4_t low = vld1q_f32(y);
  float32x4_t high = vld1q_f32(y + 4);
  low = vfmaq_f32(low, block_part<kRow, 0>(dots), scales.val[0]);
  high = vfmaq_f32(high, block_part<kRow, 1>(dots), scales.val[1]);
  if constexpr (Kind::kColumnsPerLoad == 8) {
    low = vfmaq_laneq_f32(low, scales.val[2], weighted, kRow);
    high = vfmaq_laneq_f32(high, scales.val[3], weighted, kRow);
  }
  store_step(y, low, high);
}

/// Four rows times eight outputs over one group, onto the sums in y; all pointers but the rows move on.
template <class Kind, int kParts>
VILA_INLINE void block(float* (&y)[kOwnRows], const PackedRows& rows, const std::uint8_t*& panel,
                       const float*& scales) {
  BlockF dots;
  block_parts<0, kParts>(dots, panel, rows.a, load_block_scales(rows.scale));
  const float32x4x4_t four = vld1q_f32_x4(scales);
  advance(scales, 2 * kOwnOutputs);
  const float32x4_t weighted = vld1q_f32(rows.weighted);
  finish_row<Kind, 0>(y[0], dots, four, weighted);
  finish_row<Kind, 1>(y[1], dots, four, weighted);
  finish_row<Kind, 2>(y[2], dots, four, weighted);
  finish_row<Kind, 3>(y[3], dots, four, weighted);
}

/// A block of which only some rows or outputs exist.
template <class Kind, int kParts>
[[gnu::noinline]] void edge_block(float* y, std::int64_t y_stride, std::int64_t n_rows, std::int64_t n_outputs,
                                  const PackedRows& rows, const std::uint8_t* panel, const float* scales) {
  float part[kOwnRows][kOwnOutputs] = {};
  float* pointers[kOwnRows] = {part[0], part[1], part[2], part[3]};
  for (std::int64_t r = 0; r < n_rows; ++r) {
    for (std::int64_t c = 0; c < n_outputs; ++c) part[r][c] = y[r * y_stride + c];
  }
  block<Kind, kParts>(pointers, rows, panel, scales);
  for (std::int64_t r = 0; r < n_rows; ++r) {
    for (std::int64_t c = 0; c < n_outputs; ++c) y[r * y_stride + c] = part[r][c];
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

/// All rows of tiles tile..tile+NT; the sums stand in y from group to group.
template <class Kind, int kParts, int NT>
inline void own_tiles(const MatmulQArgs& p, std::int64_t tile) {
  constexpr std::int64_t kColumns = kParts * kActivationGroup;
  const std::int64_t n_outputs = p.n - tile * 16 < 16 * NT ? p.n - tile * 16 : 16 * NT;
  float* const y = p.y + tile * 16;
  for (std::int64_t row = 0; row < p.m; ++row) {
    for (std::int64_t c = 0; c < n_outputs; ++c) y[row * p.y_stride + c] = 0.0F;
  }
  PackedTiles<NT> tiles;
  PackedRows rows;
  for (std::int64_t g = 0; g < p.k_padded / kColumns; ++g) {
    pack_tiles<Kind, kParts, NT>(p, tile, g, tiles);
    for (std::int64_t row = 0; row < p.m; row += kOwnRows) {
      pack_rows<Kind, kParts>(p, row, g, rows);
      const std::int64_t n_rows = p.m - row < kOwnRows ? p.m - row : kOwnRows;
      const std::uint8_t* panel = tiles.bytes;
      const float* scales = tiles.scales[0];
      float* first = y + row * p.y_stride;
      float* pointers[kOwnRows] = {first, first + p.y_stride, first + 2 * p.y_stride, first + 3 * p.y_stride};
      const std::int64_t whole = n_rows == kOwnRows ? n_outputs / kOwnOutputs : 0;
      for (std::int64_t left = whole; left > 0; --left) {
        block<Kind, kParts>(pointers, rows, panel, scales);
      }
      for (std::int64_t c = whole * kOwnOutputs; c < n_outputs; c += kOwnOutputs) {
        edge_block<Kind, kParts>(first + c, p.y_stride, n_rows,
                                 n_outputs - c < kOwnOutputs ? n_outputs - c : kOwnOutputs, rows, panel, scales);
        panel += kColumns * kOwnOutputs;
        scales += 2 * kOwnOutputs;
      }
    }
  }
  if (p.bias != nullptr) add_bias<NT>(p, tile);
}

template <class Kind, int kParts>
inline void own_blocks(const MatmulQArgs& p, Range tiles) {
  std::int64_t tile = tiles.begin;
  for (; tile + kOwnTiles <= tiles.end; tile += kOwnTiles) own_tiles<Kind, kParts, kOwnTiles>(p, tile);
  for (; tile < tiles.end; ++tile) own_tiles<Kind, kParts, 1>(p, tile);
}

template <class Kind>
inline void own_matmul_q(const MatmulQArgs& p, Range tiles) {
  if (p.m >= kOwnRows) {
    if (p.group == 4 * kActivationGroup) return own_blocks<Kind, 4>(p, tiles);
    if (p.group == 2 * kActivationGroup) return own_blocks<Kind, 2>(p, tiles);
    return own_blocks<Kind, 1>(p, tiles);
  }
  std::int64_t tile = tiles.begin;
  for (; tile + 2 <= tiles.end; tile += 2) {
    for (std::int64_t row = 0; row < p.m; ++row) stream_row<Kind, 2>(p, row, tile);
  }
  for (; tile < tiles.end; ++tile) {
    for (std::int64_t row = 0; row < p.m; ++row) stream_row<Kind, 1>(p, row, tile);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
