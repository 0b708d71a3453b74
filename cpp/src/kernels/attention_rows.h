// What attention in floats and attention in integers share: how many queries go through a tile of the cache together,
// which of its positions each of them sees, and their running softmax.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/simd/math.h"

namespace vila::kernels::VILA_ISA_NS {

// Register blocks: queries times vectors of 16 that are accumulated at once. With one register per vector (AVX-512)
// 12 x 2 fill 32 registers and halve the conversions; with two (AVX2) or four (NEON) 6 x 1 fill the file. Few queries
// take as many vectors as there are, so that enough sums are under way.
inline constexpr bool kOneRegister = alignof(F32x16) == 64;
inline constexpr int kFewRows = 4;
inline constexpr int kGroupRows = kOneRegister ? 12 : 6;
template <int R>
inline constexpr int kVectors = R == 1 ? 4 : (!kOneRegister ? 1 : (R <= kFewRows ? 4 : 2));

inline constexpr int kBlock = static_cast<int>(kAttentionBlock);

// The running softmax of R rows that move through the cache together.
template <int R>
struct SoftmaxState {
  float max[16];          // per row; the lanes beyond R stay 0
  F32x16 sum[R];          // 16 partial sums per row
  std::int64_t limit[R];  // the row sees positions 0 .. limit - 1
};

// Positions that R rows see of one tile: the first count[r] ones.
template <int R>
struct SeenPositions {
  int count[R];
  int least = kBlock;
  int most = 0;

  SeenPositions(const SoftmaxState<R>& state, std::int64_t begin) {
    for (int r = 0; r < R; ++r) {
      const std::int64_t seen = state.limit[r] - begin;
      count[r] = seen < 0 ? 0 : (seen > kBlock ? kBlock : static_cast<int>(seen));
      least = count[r] < least ? count[r] : least;
      most = count[r] > most ? count[r] : most;
    }
  }
};

// Scores p[r][64] of R rows for the first 16 n_vectors positions of a tile, 0 behind them, where no row sees any.
template <int R, class AnyTile, class Queries>
void tile_scores(const AnyTile& tile, int n_vectors, const Queries* queries, float* p) {
  int v = 0;
  for (; v + kVectors<R> <= n_vectors; v += kVectors<R>) score_vectors<R, kVectors<R>>(tile, v, queries, p);
  for (; v < n_vectors; ++v) score_vectors<R, 1>(tile, v, queries, p);
  for (; v < kBlock / 16; ++v) {
    for (int r = 0; r < R; ++r) store(p + r * kBlock + 16 * v, zero_f32());
  }
}

// Scores to weights in place: p[r][j] = exp(p[r][j] - new maximum), 0 for j >= count[r]; alpha rescales what was
// summed.
template <int R>
void softmax_block(const int* count, float* p, SoftmaxState<R>& state, float* alpha) {
  alignas(64) static constexpr float kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const F32x16 minus_infinity = splat(-__builtin_inff());
  float new_max[16] = {};
  for (int r = 0; r < R; ++r) {
    float* row = p + r * kBlock;
    if (count[r] < kBlock) {
      for (int v = 0; v < kBlock / 16; ++v) {
        const F32x16 seen = splat(static_cast<float>(count[r] - 16 * v));
        store(row + 16 * v, select_lt(load(kLanes), seen, load(row + 16 * v), minus_infinity));
      }
    }
    const F32x16 highest = max(max(load(row), load(row + 16)), max(load(row + 32), load(row + 48)));
    const float block_max = reduce_max(highest);
    new_max[r] = block_max > state.max[r] ? block_max : state.max[r];
  }
  store(alpha, exp(sub(load(state.max), load(new_max))));
  store(state.max, load(new_max));
  for (int r = 0; r < R; ++r) {
    float* row = p + r * kBlock;
    const F32x16 shift = splat(new_max[r]);
    F32x16 e[4];
    for (int v = 0; v < 4; ++v) {
      e[v] = exp(sub(load(row + 16 * v), shift));
      store(row + 16 * v, e[v]);
    }
    state.sum[r] = fma(state.sum[r], splat(alpha[r]), add(add(e[0], e[1]), add(e[2], e[3])));
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
