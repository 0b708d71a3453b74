// int4 and int8 weights times int8 activations; see MatmulQArgs for the formula and docs/FORMATS.md for the tiles.
//
// Two loops share one arithmetic. Few rows (decode) are bound by memory: weights go from memory to registers once, tile
// after tile, in several sums so that enough products are in flight. Many rows (prefill, vision) are bound by
// multiplies: a group of columns is unpacked to bytes once (to 16 bits where that is faster), and blocks of kDotRows x
// kDotTiles sums stay in registers. Every output is one chain of fused multiply-adds over ascending groups in both, so
// the bits do not depend on the blocking.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

// The sums of a register block live in registers only if the loops over them are unrolled before anything else.
#define VILA_UNROLL _Pragma("GCC unroll 16")
#define VILA_INLINE [[gnu::always_inline]] inline

// Unpacked at once: 8 tiles x 16 rows x kPanelColumns, a part of the second-level cache. Sums travel through y once in
// so many columns. Groups have 32 columns or more.
inline constexpr std::int64_t kPanelTiles = 8;
inline constexpr std::int64_t kPanelGroups = kPanelColumns / 32;
inline constexpr std::int64_t kPieceGroups = (kPanelGroups + 15) / 16 * 16;  // of the rows beside, in whole vectors
inline constexpr std::int64_t kPrefetchBytes = 1536;

// Few rows ask for weights this far ahead, and for scales and zero points this many groups ahead, for the second cache
// level: the first one has too few lines under way to keep up with memory.
inline constexpr std::int64_t kStreamAhead = 1536;
inline constexpr std::int64_t kScalesAhead = 8;

/// What a weight kind contributes: how 4 or 8 columns are loaded, and the integer sum of one group of activations. In
/// panels values take kPanelBytes, so do the activations beside them: a vector has 4 / kPanelBytes columns of 16 rows.
struct Int4 {
  static constexpr std::int64_t kColumnsPerLoad = 8;
  static constexpr std::int64_t kPanelBytes = 1;
  using Sum = S4;  // holds the 32 columns of an activation group
  static constexpr bool kBiased = false;
  static Sum start_sum(std::int32_t) { return zero_s4(); }
  static Sum dot(Sum sum, W8 w, A4 a) { return dot4_u(sum, w, a); }
  static Sum panel_dot(Sum sum, W8 w, A4 a) { return dot(sum, w, a); }
  static I32x16 total(Sum sum) { return widen(sum); }
  /// The vectors of one load at panel, panel + kStride, ...
  template <std::int64_t kStride>
  static void unpack(const std::uint8_t* w, std::uint8_t* panel) {
    const W4 nibbles = load_w4(w);
    store_w8(panel, low_nibbles(nibbles));
    store_w8(panel + kStride, high_nibbles(nibbles));
  }
};
struct Int8 : PanelS8 {
  static constexpr std::int64_t kColumnsPerLoad = 4;
  using Sum = I32x16;
  static constexpr bool kBiased = kW8Bias != 0;
  static std::int32_t start(std::int32_t a_sum) { return -kW8Bias * a_sum; }
  static Sum start_sum(std::int32_t a_sum) { return kBiased ? splat_i32(start(a_sum)) : zero_i32(); }
  static Sum dot(Sum sum, W8 w, A4 a) { return dot4_s(sum, w, a); }
  static I32x16 total(Sum sum) { return sum; }
};

/// acc plus what a weight group gives: its scale times the scaled dots, and for int4 its offset times the weighted sum.
template <class Kind>
VILA_INLINE F32x16 finish_group(F32x16 acc, F32x16 dots, F32x16 w_scale, F32x16 offset, const float* a_weighted) {
  acc = fma(dots, w_scale, acc);
  if constexpr (Kind::kColumnsPerLoad == 8) acc = fma(offset, splat(*a_weighted), acc);
  return acc;
}

/// The weighted sum of row `row` in group g; int8 has none.
template <class Kind>
inline const float* weighted_at(const MatmulQArgs& p, std::int64_t row, std::int64_t groups, std::int64_t g) {
  return Kind::kColumnsPerLoad == 8 ? p.a_weighted + row * groups + g : nullptr;
}

template <class Kind>
VILA_INLINE F32x16 load_offset(const MatmulQArgs& p, std::int64_t at, F32x16 w_scale) {
  if constexpr (Kind::kColumnsPerLoad == 4) {
    return zero_f32();
  } else {
    if (p.w_offset != nullptr) return load_f16(p.w_offset + at);
    const F32x16 zero = p.w_zero != nullptr ? to_f32(load_u8(p.w_zero + at)) : splat(8.0F);
    return neg(mul(zero, w_scale));
  }
}

/// Writes acc + bias to the columns of a tile that exist.
inline void store_tile(float* y, const float* bias, std::int64_t n, std::int64_t tile, F32x16 acc) {
  const std::int64_t first = tile * 16;
  const int valid = n - first < 16 ? static_cast<int>(n - first) : 16;
  if (valid == 16) {
    store(y + first, bias != nullptr ? add(acc, load(bias + first)) : acc);
  } else {
    store_partial(y + first, bias != nullptr ? add(acc, load_partial(bias + first, valid)) : acc, valid);
  }
}

/// The first `valid` of 16 columns, the rest 0.
inline F32x16 load_columns(const float* y, int valid) {
  return valid >= 16 ? load(y) : load_partial(y, valid > 0 ? valid : 0);
}

template <class Kind>
constexpr std::int64_t tile_stride(std::int64_t k_padded) {
  return k_padded * 64 / Kind::kColumnsPerLoad;
}

/// Asks for the scales, zero points and offsets of a later group of a tile; `at` is that of group g.
VILA_INLINE void prefetch_scales(const MatmulQArgs& p, std::int64_t at, std::int64_t g) {
  constexpr std::int64_t kAhead = 16 * kScalesAhead;
  if (g % 2 == 0) {  // a line holds f16 for two groups, bytes for four
    prefetch_l2(p.w_scale + at + kAhead);
    if (p.w_offset != nullptr) prefetch_l2(p.w_offset + at + kAhead);
    if (p.w_zero != nullptr && g % 4 == 0) prefetch_l2(p.w_zero + at + kAhead);
  }
}

/// Sums of one row that are under way at once: the products of a single sum would wait for each other. Integer sums are
/// exact, so their number changes no bit.
template <int MR>
inline constexpr int kChains = MR == 1   ? 4
                               : MR == 2 ? 2
                                         : 1;

/// The products of kActivationGroup columns of a tile with MR rows, on top of what `sum` holds.
template <class Kind, int MR>
VILA_INLINE void stream_step(const std::uint8_t* w, const std::int8_t* a, std::int64_t a_stride,
                             typename Kind::Sum (&sum)[MR][kChains<MR>]) {
  constexpr int kLoads = kActivationGroup / Kind::kColumnsPerLoad;
  VILA_UNROLL for (int i = 0; i < kLoads; ++i) {
    prefetch_l2(w + 64 * i + kStreamAhead);
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      const std::int8_t* columns = a + r * a_stride + i * Kind::kColumnsPerLoad;
      typename Kind::Sum& chain = sum[r][i % kChains<MR>];
      if constexpr (Kind::kColumnsPerLoad == 8) {
        const W4 nibbles = load_w4(w + 64 * i);
        chain = Kind::dot(chain, low_nibbles(nibbles), load_a4(columns));
        chain = Kind::dot(chain, high_nibbles(nibbles), load_a4(columns + 4));
      } else {
        chain = Kind::dot(chain, load_w8(w + 64 * i), load_a4(columns));
      }
    }
  }
}

/// Rows row..row+MR of a tile, weights straight from memory, front to back: one stream is what hardware prefetches
/// best.
template <class Kind, int MR>
inline void stream_tile(const MatmulQArgs& p, std::int64_t row, std::int64_t tile) {
  const std::int64_t groups = p.k_padded / p.group;
  const std::int64_t parts = p.group / p.a_group;
  const std::uint8_t* w = p.w + tile * tile_stride<Kind>(p.k_padded);
  const std::int8_t* a = p.a + row * p.k_padded;
  F32x16 acc[MR];
  VILA_UNROLL for (int r = 0; r < MR; ++r) acc[r] = zero_f32();
  for (std::int64_t g = 0; g < groups; ++g) {
    F32x16 dots[MR];
    VILA_UNROLL for (int r = 0; r < MR; ++r) dots[r] = zero_f32();
    for (std::int64_t part = g * parts; part < (g + 1) * parts; ++part) {
      typename Kind::Sum sum[MR][kChains<MR>];
      VILA_UNROLL for (int r = 0; r < MR; ++r) {
        sum[r][0] = Kind::start_sum(p.a_sum[(row + r) * groups * parts + part]);
        VILA_UNROLL for (int c = 1; c < kChains<MR>; ++c) sum[r][c] = Kind::start_sum(0);
      }
      for (std::int64_t k = 0; k < p.a_group; k += kActivationGroup, a += kActivationGroup) {
        stream_step<Kind, MR>(w, a, p.k_padded, sum);
        w += 64 * kActivationGroup / Kind::kColumnsPerLoad;
      }
      VILA_UNROLL for (int r = 0; r < MR; ++r) {
        I32x16 total = Kind::total(sum[r][0]);
        VILA_UNROLL for (int c = 1; c < kChains<MR>; ++c) total = add(total, Kind::total(sum[r][c]));
        dots[r] = fma(to_f32(total), splat(p.a_scale[(row + r) * groups * parts + part]), dots[r]);
      }
    }
    const std::int64_t at = (tile * groups + g) * 16;
    prefetch_scales(p, at, g);
    const F32x16 w_scale = load_f16(p.w_scale + at);
    const F32x16 offset = load_offset<Kind>(p, at, w_scale);
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      acc[r] = finish_group<Kind>(acc[r], dots[r], w_scale, offset, weighted_at<Kind>(p, row + r, groups, g));
    }
  }
  VILA_UNROLL for (int r = 0; r < MR; ++r) store_tile(p.y + (row + r) * p.y_stride, p.bias, p.n, tile, acc[r]);
}

/// All rows of a tile; after the first ones its weights lie in the caches.
template <class Kind>
inline void few_rows(const MatmulQArgs& p, std::int64_t tile) {
  std::int64_t row = 0;
  for (; row + 4 <= p.m; row += 4) stream_tile<Kind, 4>(p, row, tile);
  for (; row + 2 <= p.m; row += 2) stream_tile<Kind, 2>(p, row, tile);
  if (row < p.m) stream_tile<Kind, 1>(p, row, tile);
}

/// Copies `n` floats in whole vectors, the last one filled up with 0: of a plain loop GCC makes a call of memcpy, which
/// costs more than the few values do.
VILA_INLINE void copy_groups(float* to, const float* from, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += 16) store(to + i, load_columns(from + i, static_cast<int>(n - i)));
}

/// Columns of some rows as the blocks of all tiles read them: activations in place or widened, scales and weighted sums
/// side by side, so that a block needs one address for them.
template <class Kind, int MR>
struct RowPiece {
  const std::int8_t* a;
  std::int64_t stride;  // of a, in bytes
  float scale[MR][kPieceGroups];
  std::int32_t start[MR][Kind::kBiased ? kPieceGroups : 1];  // of each group's integer sum
  float weighted[MR][kPieceGroups];
  alignas(64) std::int8_t wide[MR][Kind::kPanelBytes == 1 ? 1 : kPanelColumns * Kind::kPanelBytes];
};

/// Groups first..last of rows row..row+MR.
template <class Kind, int MR>
inline void take_rows(const MatmulQArgs& p, std::int64_t row, Range groups, RowPiece<Kind, MR>& piece) {
  const std::int64_t row_groups = p.k_padded / p.group;
  const std::int64_t parts = p.group / kActivationGroup;
  const std::int64_t n_groups = groups.end - groups.begin;
  piece.a = p.a + row * p.k_padded + groups.begin * p.group;
  piece.stride = p.k_padded;
  for (int r = 0; r < MR; ++r) {
    const std::int64_t first = (row + r) * row_groups + groups.begin;
    copy_groups(piece.scale[r], p.a_scale + first * parts, n_groups * parts);
    if constexpr (Kind::kBiased) {
      for (std::int64_t s = 0; s < n_groups * parts; ++s) piece.start[r][s] = Kind::start(p.a_sum[first * parts + s]);
    }
    if constexpr (Kind::kColumnsPerLoad == 8) copy_groups(piece.weighted[r], p.a_weighted + first, n_groups);
  }
  if constexpr (Kind::kPanelBytes != 1) {
    for (int r = 0; r < MR; ++r) {
      Kind::widen(piece.a + r * p.k_padded, n_groups * p.group, piece.wide[r]);
    }
    piece.a = piece.wide[0];
    piece.stride = sizeof piece.wide[0];
  }
}

/// The sums of one group of activations for MR rows and NT tiles, on top of what `sum` holds.
template <class Kind, int MR, int NT>
VILA_INLINE void block_sums(const std::uint8_t* panel, const std::int8_t* a, std::int64_t a_stride,
                            typename Kind::Sum (&sum)[MR][NT]) {
  VILA_UNROLL for (int step = 0; step < kActivationGroup / 4 * Kind::kPanelBytes; ++step) {
    W8 w[NT];
    VILA_UNROLL for (int t = 0; t < NT; ++t) w[t] = reload_w8(panel + 64 * (step * NT + t));
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      const A4 quad = load_a4(a + r * a_stride + 4 * step);
      VILA_UNROLL for (int t = 0; t < NT; ++t) {
        sum[r][t] = Kind::panel_dot(sum[r][t], w[t], quad);
        hold_in_registers(sum[r][t]);
      }
    }
  }
}

/// Columns first..first+columns of NT tiles, the tiles' vectors side by side.
template <class Kind, int NT>
inline void unpack_panel(const MatmulQArgs& p, std::int64_t tile, std::int64_t first, std::int64_t columns,
                         std::uint8_t* panel) {
  constexpr std::int64_t kStep = Kind::kColumnsPerLoad;
  const std::int64_t stride = tile_stride<Kind>(p.k_padded);
  VILA_UNROLL for (int t = 0; t < NT; ++t) {
    const std::uint8_t* w = p.w + (tile + t) * stride + first / kStep * 64;
    for (std::int64_t k = 0; k < columns; k += kStep, w += 64) {
      Kind::template unpack<NT * 64>(w, panel + (k / 4 * Kind::kPanelBytes * NT + t) * 64);
      prefetch(w + kPrefetchBytes);
    }
  }
}

/// The scaled dots of the piece's weight group `at`.
template <class Kind, int MR, int NT>
VILA_INLINE void block_dots(const MatmulQArgs& p, std::int64_t at, const std::uint8_t* panel,
                            const RowPiece<Kind, MR>& piece, F32x16 (&dots)[MR][NT]) {
  constexpr std::int64_t kPart = kActivationGroup * Kind::kPanelBytes;
  const std::int64_t parts = p.group / kActivationGroup;
  VILA_UNROLL for (int r = 0; r < MR; ++r) {
    VILA_UNROLL for (int t = 0; t < NT; ++t) {
      dots[r][t] = zero_f32();
      hold_beside_sums(dots[r][t]);
    }
  }
  for (std::int64_t part = at * parts; part < (at + 1) * parts; ++part) {
    typename Kind::Sum sum[MR][NT];
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      VILA_UNROLL for (int t = 0; t < NT; ++t) {
        if constexpr (Kind::kBiased) {
          sum[r][t] = splat_i32(piece.start[r][part]);
        } else {
          sum[r][t] = Kind::start_sum(0);
        }
      }
    }
    block_sums<Kind, MR, NT>(panel + part * kPart * 16 * NT, piece.a + part * kPart, piece.stride, sum);
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      const F32x16 a_scale = splat(piece.scale[r][part]);
      VILA_UNROLL for (int t = 0; t < NT; ++t) {
        dots[r][t] = fma(to_f32(Kind::total(sum[r][t])), a_scale, dots[r][t]);
        hold_beside_sums(dots[r][t]);
      }
    }
  }
}

/// Some groups of columns of NT tiles, ready for all rows.
template <class Kind, int NT>
struct Panel {
  F32x16 w_scale[kPanelGroups][NT], offset[kPanelGroups][NT];
  alignas(64) std::uint8_t bytes[kPanelColumns * 16 * NT * Kind::kPanelBytes];
};

/// Groups first..last of rows row..row+MR; the float sums of earlier panels stand in y. Not inlined, so that nothing
/// of the loops around it takes registers.
template <class Kind, int MR, int NT>
[[gnu::noinline]] void block_panel(const MatmulQArgs& p, std::int64_t row, std::int64_t tile, Range groups,
                                   const Panel<Kind, NT>& panel, const RowPiece<Kind, MR>& piece) {
  const std::int64_t all = p.k_padded / p.group;
  const std::int64_t first = tile * 16;
  const int valid = p.n - first < 16 * NT ? static_cast<int>(p.n - first) : 16 * NT;
  float* y = p.y + row * p.y_stride + first;
  F32x16 acc[MR][NT];
  VILA_UNROLL for (int r = 0; r < MR; ++r) {
    VILA_UNROLL for (int t = 0; t < NT; ++t) {
      acc[r][t] = groups.begin == 0 ? zero_f32() : load_columns(y + r * p.y_stride + 16 * t, valid - 16 * t);
    }
  }
  for (std::int64_t g = groups.begin; g < groups.end; ++g) {
    const std::int64_t at = g - groups.begin;
    F32x16 dots[MR][NT];
    block_dots<Kind, MR, NT>(p, at, panel.bytes, piece, dots);
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      VILA_UNROLL for (int t = 0; t < NT; ++t) {
        acc[r][t] = finish_group<Kind>(acc[r][t], dots[r][t], panel.w_scale[at][t], panel.offset[at][t],
                                       &piece.weighted[r][at]);
        hold_beside_sums(acc[r][t]);
      }
    }
  }
  const float* bias = groups.end == all ? p.bias : nullptr;
  VILA_UNROLL for (int r = 0; r < MR; ++r) {
    VILA_UNROLL for (int t = 0; t < NT; ++t) store_tile(p.y + (row + r) * p.y_stride, bias, p.n, tile + t, acc[r][t]);
  }
}

/// Asks for packed weights of tiles, 64 bytes of each at a time, in `n_steps` steps.
struct TilesAhead {
  const std::uint8_t* w;
  std::int64_t stride, n_tiles, lines, n_steps;
  std::int64_t line = 0;

  VILA_INLINE void step() {
    const std::int64_t per_step = (lines + n_steps - 1) / n_steps;
    const std::int64_t end = line + per_step < lines ? line + per_step : lines;
    for (; line < end; ++line) {
      for (std::int64_t t = 0; t < n_tiles; ++t) prefetch_l2(w + t * stride + 64 * line);
    }
  }
};

/// All rows of `blocks` blocks of NT tiles through unpacked panels; the group is at most kPanelColumns. Rows are the
/// outer loop inside a panel: a piece of activations is read once for all blocks while the panels stay near.
template <class Kind, int NT>
inline void block_tiles(const MatmulQArgs& p, std::int64_t tile, std::int64_t blocks) {
  constexpr std::int64_t kBlocks = kPanelTiles / NT;
  const std::int64_t all = p.k_padded / p.group;
  const std::int64_t fitting = kPanelColumns / p.group;
  const std::int64_t n_panels = (all + fitting - 1) / fitting;
  const std::int64_t step = (all + n_panels - 1) / n_panels;
  Panel<Kind, NT> panels[kBlocks];
  for (Range groups{0, 0}; groups.begin < all; groups.begin = groups.end) {
    groups.end = groups.begin + step < all ? groups.begin + step : all;
    const std::int64_t first = groups.begin * p.group;
    const std::int64_t columns = (groups.end - groups.begin) * p.group;
    for (std::int64_t b = 0; b < blocks; ++b) {
      unpack_panel<Kind, NT>(p, tile + b * NT, first, columns, panels[b].bytes);
      for (std::int64_t g = groups.begin; g < groups.end; ++g) {
        VILA_UNROLL for (int t = 0; t < NT; ++t) {
          const std::int64_t at = ((tile + b * NT + t) * all + g) * 16;
          const F32x16 w_scale = load_f16(p.w_scale + at);
          panels[b].w_scale[g - groups.begin][t] = w_scale;
          panels[b].offset[g - groups.begin][t] = load_offset<Kind>(p, at, w_scale);
        }
      }
    }
    // While these panels are used, what the next ones are made of comes from memory: the columns behind, at the end
    // those of the tiles behind.
    constexpr std::int64_t kStep = Kind::kColumnsPerLoad;
    const std::int64_t stride = tile_stride<Kind>(p.k_padded);
    const bool last = groups.end == all;
    TilesAhead ahead{last ? p.w + (tile + blocks * NT) * stride : p.w + tile * stride + (first + columns) / kStep * 64,
                     stride, blocks * NT, step * p.group / kStep, (p.m + kDotRows - 1) / kDotRows};
    const auto rows = [&]<int MR>(std::int64_t row) {
      RowPiece<Kind, MR> piece;
      take_rows(p, row, groups, piece);
      ahead.step();
      for (std::int64_t b = 0; b < blocks; ++b) {
        block_panel<Kind, MR, NT>(p, row, tile + b * NT, groups, panels[b], piece);
      }
    };
    std::int64_t row = 0;
    for (; row + kDotRows <= p.m; row += kDotRows) rows.template operator()<kDotRows>(row);
    for (; row < p.m; ++row) rows.template operator()<1>(row);
  }
}

/// Tiles first..last in blocks of NT; gives the first tile that is left.
template <class Kind, int NT>
inline std::int64_t block_range(const MatmulQArgs& p, std::int64_t first, std::int64_t last) {
  while (last - first >= NT) {
    const std::int64_t fitting = (last - first) / NT;
    const std::int64_t blocks = fitting < kPanelTiles / NT ? fitting : kPanelTiles / NT;
    block_tiles<Kind, NT>(p, first, blocks);
    first += blocks * NT;
  }
  return first;
}

}  // namespace vila::kernels::VILA_ISA_NS

#ifdef VILA_OWN_BLOCKS
#include VILA_OWN_BLOCKS
#endif

namespace vila::kernels::VILA_ISA_NS {

template <class Kind>
inline void matmul_q(const MatmulQArgs& p, Range tiles) {
#ifdef VILA_OWN_BLOCKS
  if (p.a_group == kActivationGroup && p.group <= kOwnColumns) return own_matmul_q<Kind>(p, tiles);
#endif
  // One activation scale for a whole row goes with one weight scale for a whole row, which takes no panel.
  const bool blocked = p.m >= kDotRows && p.a_group == kActivationGroup && p.group <= kPanelColumns;
  std::int64_t tile = tiles.begin;
  if (blocked) {
    tile = block_range<Kind, kDotTiles>(p, tile, tiles.end);
    block_range<Kind, 1>(p, tile, tiles.end);
  } else {
    for (; tile < tiles.end; ++tile) few_rows<Kind>(p, tile);
  }
}

inline void matmul_w4(const MatmulQArgs& p, Range tiles) { matmul_q<Int4>(p, tiles); }
inline void matmul_w8(const MatmulQArgs& p, Range tiles) { matmul_q<Int8>(p, tiles); }

}  // namespace vila::kernels::VILA_ISA_NS
