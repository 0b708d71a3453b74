// f32 and f16 weights times f32 activations; see MatmulFArgs. One chain of fused multiply-adds over ascending columns
// per output, whatever the blocking.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

// 4 tiles x 64 columns x 64 bytes = 16 KiB: half of the first-level cache.
inline constexpr std::int64_t kFloatPanelColumns = 64;
inline constexpr std::int64_t kFloatPanelTiles = 4;

/// MR rows x NT tiles over `columns` columns; acc is carried in y between panels.
template <int MR, int NT>
inline void float_block(const MatmulFArgs& p, std::int64_t row, std::int64_t tile, const float* const (&w)[NT],
                        std::int64_t first, std::int64_t columns) {
  F32x16 acc[MR][NT];
  VILA_UNROLL for (int r = 0; r < MR; ++r) {
    const float* y = p.y + (row + r) * p.y_stride;
    VILA_UNROLL for (int t = 0; t < NT; ++t) {
      const std::int64_t column = (tile + t) * 16;
      const int valid = p.n - column < 16 ? static_cast<int>(p.n - column) : 16;
      acc[r][t] = first == 0 ? zero_f32() : valid == 16 ? load(y + column) : load_partial(y + column, valid);
    }
  }
  const float* a = p.a + row * p.a_stride + first;
  for (std::int64_t k = 0; k < columns; ++k) {
    F32x16 weights[NT];
    VILA_UNROLL for (int t = 0; t < NT; ++t) weights[t] = load(w[t] + 16 * k);
    VILA_UNROLL for (int r = 0; r < MR; ++r) {
      const F32x16 value = splat(a[r * p.a_stride + k]);
      VILA_UNROLL for (int t = 0; t < NT; ++t) acc[r][t] = fma(weights[t], value, acc[r][t]);
    }
  }
  const float* bias = first + columns == p.k ? p.bias : nullptr;
  VILA_UNROLL for (int r = 0; r < MR; ++r) {
    VILA_UNROLL for (int t = 0; t < NT; ++t) store_tile(p.y + (row + r) * p.y_stride, bias, p.n, tile + t, acc[r][t]);
  }
}

/// All rows of `blocks` blocks of NT tiles; rows are the outer loop inside a panel of columns, as in matmul_q.h.
template <bool kHalf, int NT>
inline void float_tiles(const MatmulFArgs& p, std::int64_t tile, std::int64_t blocks) {
  constexpr std::int64_t kBlocks = kFloatPanelTiles / NT;
  alignas(64) float panel[kHalf ? kFloatPanelTiles * kFloatPanelColumns * 16 : 16];
  const float* w[kBlocks][NT];
  for (std::int64_t first = 0; first < p.k; first += kFloatPanelColumns) {
    const std::int64_t columns = p.k - first < kFloatPanelColumns ? p.k - first : kFloatPanelColumns;
    for (std::int64_t t = 0; t < blocks * NT; ++t) {
      const std::int64_t at = ((tile + t) * p.k + first) * 16;
      if constexpr (kHalf) {
        float* unpacked = panel + t * kFloatPanelColumns * 16;
        const auto* source = static_cast<const std::uint16_t*>(p.w) + at;
        for (std::int64_t k = 0; k < columns; ++k) store(unpacked + 16 * k, load_f16(source + 16 * k));
        w[t / NT][t % NT] = unpacked;
      } else {
        w[t / NT][t % NT] = static_cast<const float*>(p.w) + at;
      }
    }
    const auto rows = [&]<int MR>(std::int64_t row) {
      for (std::int64_t b = 0; b < blocks; ++b) float_block<MR, NT>(p, row, tile + b * NT, w[b], first, columns);
    };
    std::int64_t row = 0;
    for (; row + kFloatRows <= p.m; row += kFloatRows) rows.template operator()<kFloatRows>(row);
    for (; row < p.m; ++row) rows.template operator()<1>(row);
  }
}

/// Tiles first..last in blocks of NT; gives the first tile that is left.
template <bool kHalf, int NT>
inline std::int64_t float_range(const MatmulFArgs& p, std::int64_t first, std::int64_t last) {
  while (last - first >= NT) {
    const std::int64_t fitting = (last - first) / NT;
    const std::int64_t blocks = fitting < kFloatPanelTiles / NT ? fitting : kFloatPanelTiles / NT;
    float_tiles<kHalf, NT>(p, first, blocks);
    first += blocks * NT;
  }
  return first;
}

template <bool kHalf>
inline void matmul_f(const MatmulFArgs& p, Range tiles) {
  // One row needs several tiles side by side to hide the latency of the fused multiply-add.
  constexpr int kTiles = kFloatTiles > 4 ? kFloatTiles : 4;
  const std::int64_t left = p.m < kFloatRows ? float_range<kHalf, kTiles>(p, tiles.begin, tiles.end)
                                             : float_range<kHalf, kFloatTiles>(p, tiles.begin, tiles.end);
  float_range<kHalf, 1>(p, left, tiles.end);
}

inline void matmul_f32(const MatmulFArgs& p, Range tiles) { matmul_f<false>(p, tiles); }
inline void matmul_f16(const MatmulFArgs& p, Range tiles) { matmul_f<true>(p, tiles); }

}  // namespace vila::kernels::VILA_ISA_NS
