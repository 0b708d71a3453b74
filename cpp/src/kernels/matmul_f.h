// f32 and f16 weights times f32 activations; see MatmulFArgs. One chain of fused multiply-adds over ascending columns per
// output, whatever the blocking.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

inline constexpr std::int64_t kFloatPanelColumns = 128;  // 4 tiles x 128 columns x 64 bytes = 32 KiB: the first-level cache

/// MR rows x NT tiles over `columns` columns; acc is carried in y between panels.
template <int MR, int NT>
inline void float_block(const MatmulFArgs& p, std::int64_t row, std::int64_t tile, const float* const (&w)[NT],
                        std::int64_t first, std::int64_t columns) {
  F32x16 acc[MR][NT];
  for (int r = 0; r < MR; ++r) {
    const float* y = p.y + (row + r) * p.y_stride;
    for (int t = 0; t < NT; ++t) {
      const std::int64_t column = (tile + t) * 16;
      const int valid = p.n - column < 16 ? static_cast<int>(p.n - column) : 16;
      acc[r][t] = first == 0 ? zero_f32() : valid == 16 ? load(y + column) : load_partial(y + column, valid);
    }
  }
  const float* a = p.a + row * p.a_stride + first;
  for (std::int64_t k = 0; k < columns; ++k) {
    F32x16 weights[NT];
    for (int t = 0; t < NT; ++t) weights[t] = load(w[t] + 16 * k);
    for (int r = 0; r < MR; ++r) {
      const F32x16 value = splat(a[r * p.a_stride + k]);
      for (int t = 0; t < NT; ++t) acc[r][t] = fma(weights[t], value, acc[r][t]);
    }
  }
  const float* bias = first + columns == p.k ? p.bias : nullptr;
  for (int r = 0; r < MR; ++r) {
    for (int t = 0; t < NT; ++t) store_tile(p.y + (row + r) * p.y_stride, bias, p.n, tile + t, acc[r][t]);
  }
}

template <bool kHalf, int NT>
inline void float_tiles(const MatmulFArgs& p, std::int64_t tile) {
  alignas(64) float panel[kHalf ? NT * kFloatPanelColumns * 16 : 16];
  for (std::int64_t first = 0; first < p.k; first += kFloatPanelColumns) {
    const std::int64_t columns = p.k - first < kFloatPanelColumns ? p.k - first : kFloatPanelColumns;
    const float* w[NT];
    for (int t = 0; t < NT; ++t) {
      const std::int64_t at = ((tile + t) * p.k + first) * 16;
      if constexpr (kHalf) {
        float* unpacked = panel + t * kFloatPanelColumns * 16;
        const auto* source = static_cast<const std::uint16_t*>(p.w) + at;
        for (std::int64_t k = 0; k < columns; ++k) store(unpacked + 16 * k, load_f16(source + 16 * k));
        w[t] = unpacked;
      } else {
        w[t] = static_cast<const float*>(p.w) + at;
      }
    }
    std::int64_t row = 0;
    for (; row + kBlockRows <= p.m; row += kBlockRows) float_block<kBlockRows, NT>(p, row, tile, w, first, columns);
    for (; row < p.m; ++row) float_block<1, NT>(p, row, tile, w, first, columns);
  }
}

template <bool kHalf>
inline void matmul_f(const MatmulFArgs& p, Range tiles) {
  // One row needs several tiles side by side to hide the latency of the fused multiply-add.
  constexpr int kTiles = kBlockTiles > 4 ? kBlockTiles : 4;
  std::int64_t tile = tiles.begin;
  if (p.m < kBlockRows) {
    for (; tile + kTiles <= tiles.end; tile += kTiles) float_tiles<kHalf, kTiles>(p, tile);
  } else {
    for (; tile + kBlockTiles <= tiles.end; tile += kBlockTiles) float_tiles<kHalf, kBlockTiles>(p, tile);
  }
  for (; tile < tiles.end; ++tile) float_tiles<kHalf, 1>(p, tile);
}

inline void matmul_f32(const MatmulFArgs& p, Range tiles) { matmul_f<false>(p, tiles); }
inline void matmul_f16(const MatmulFArgs& p, Range tiles) { matmul_f<true>(p, tiles); }

}  // namespace vila::kernels::VILA_ISA_NS
