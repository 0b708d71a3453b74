// Attention in integers for one tile of the cache: the products of the vision towers' queries, keys, softmax weights
// and values as exact sums of int16 pairs. Softmax itself stays in f32 (attention_rows.h).
//
// Shapes   tiles of keys [Dk / 2][64][2] and values [32][Dp][2] with a scale per key and value; queries [Dk / 2][R][2].
// Exact    sums of products are integers below 2^31 (kScoreBound, kValueBound, kWeightBound), so that their order, how
//          queries are grouped, and positions whose weight is 0 change no bit. In f32, in this order: score = dot *
//          (q_scale * k_scale); p = e * v_scale; m = highest p of the tile; weight = round_half_even(p * (32767 / m));
//          output = output * alpha + dot * (m / 32767), the last as one fma. A tile with m < 2^-100 adds nothing.
// Cost     a multiply takes two columns or positions, where an fma takes one; beside it one conversion and one fma per
//          tile and output, and rounding 64 weights per tile and query.
#pragma once

#include "kernels/attention_rows.h"
#include "kernels/quantize_s16.h"

namespace vila::kernels::VILA_ISA_NS {

// acc[r][v] += sum over pairs k of a[k * AK + r * AR] * b[k * b_row + 32 v], distances in int16.
template <int R, int NV, int AK, int AR>
[[gnu::always_inline]] inline void accumulate_pairs(const std::int16_t* a, const std::int16_t* b, std::int64_t b_row,
                                                    std::int64_t n, I32x16 (&acc)[R][NV]) {
  for (std::int64_t k = 0; k < n; ++k) {
    Pairs columns[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) columns[v] = load_pairs(b + 32 * v);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Pair x = load_pair(a + r * AR);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[r][v] = dot2_s16(acc[r][v], columns[v], x);
        hold_in_registers(acc[r][v]);
      }
    }
    a += AK;
    b += b_row;
  }
}

// One block of positions of one KV head, as KvLayout describes it.
struct TileS16 {
  const std::int16_t* keys;    // [Dk / 2][64][2]
  const std::int16_t* values;  // [32][Dp][2]
  const float* key_scales;     // [64]
  const float* value_scales;   // [64]
  std::int64_t column_pairs, dp;

  TileS16(const KvLayout& cache, std::int64_t kv_head, std::int64_t block)
      : column_pairs((cache.head_dim + 1) / 2), dp(cache.padded_dim()) {
    const char* at = static_cast<const char*>(cache.data) + block * cache.block_stride + kv_head * cache.tile_bytes();
    keys = reinterpret_cast<const std::int16_t*>(at);
    values = reinterpret_cast<const std::int16_t*>(at + cache.key_bytes());
    key_scales = reinterpret_cast<const float*>(at + cache.key_bytes() + cache.value_bytes());
    value_scales = key_scales + kBlock;
  }

  // R queries in memory: f32 scales [16], which hold the softmax's scale too, then their integers [Dk / 2][R][2].
  static constexpr std::int64_t kScaleBytes = 64;
  template <int R>
  static constexpr std::int64_t query_bytes(std::int64_t d) {
    return kScaleBytes + (d + 1) / 2 * R * 4;
  }
  template <int R>
  static void set_query(const float* row, std::int64_t d, float scale, int r, std::byte* queries) {
    std::int16_t columns[kMaxHeadDimS16];
    reinterpret_cast<float*>(queries)[r] = quantize_s16(row, d, kScoreBound, columns) * scale;
    auto* pairs = reinterpret_cast<std::int16_t*>(queries + kScaleBytes) + 2 * r;
    for (std::int64_t i = 0; i < (d + 1) / 2; ++i) {
      pairs[i * 2 * R] = columns[2 * i];
      pairs[i * 2 * R + 1] = columns[2 * i + 1];
    }
  }
};

// Scores of NV vectors of 16 positions from the one of that number: p[r][0 .. 16 NV).
template <int R, int NV>
void score_vectors(const TileS16& tile, int first, const std::byte* queries, float* p) {
  const auto* scale = reinterpret_cast<const float*>(queries);
  const auto* q = reinterpret_cast<const std::int16_t*>(queries + TileS16::kScaleBytes);
  I32x16 acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = zero_i32();
  }
  accumulate_pairs<R, NV, 2 * R, 2>(q, tile.keys + 32 * first, 2 * kBlock, tile.column_pairs, acc);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const int at = 16 * (first + v);
    const F32x16 key_scales = load(tile.key_scales + at);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      store(p + r * kBlock + at, mul(to_f32(acc[r][v]), mul(splat(scale[r]), key_scales)));
    }
  }
}

// Columns c .. c + 16 NV: out[r][.] = out[r][.] * alpha[r] + step[r] * sum over n pairs of positions of weights[r][j] *
// values[j][.].
template <int R, int NV>
void value_vectors(const TileS16& tile, std::int64_t n, std::int64_t c, const std::int16_t* weights, const float* step,
                   const float* alpha, float* out) {
  I32x16 acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = zero_i32();
  }
  accumulate_pairs<R, NV, 2, kBlock>(weights, tile.values + 2 * c, 2 * tile.dp, n, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* to = out + r * tile.dp + c + 16 * v;
      store(to, fma(to_f32(acc[r][v]), splat(step[r]), mul(load(to), splat(alpha[r]))));
    }
  }
}

// Softmax weights e, in p, to the integers that multiply values: weights[r][j] = e[r][j] * value_scales[j] / step[r].
// What was not seen has e = 0; its scale may never have been written, and a NaN counts as 0 too.
template <int R>
void weigh_values(const TileS16& tile, int n_vectors, float* p, std::int16_t* weights, float* step) {
  alignas(64) float highest[16] = {};
  for (int r = 0; r < R; ++r) {
    F32x16 lanes = zero_f32();
    for (int at = 0; at < 16 * n_vectors; at += 16) {
      const F32x16 weight = max(mul(load(p + r * kBlock + at), load(tile.value_scales + at)), zero_f32());
      store(p + r * kBlock + at, weight);
      lanes = max(lanes, weight);
    }
    highest[r] = reduce_max(lanes);
  }
  alignas(64) float inverse[16];
  const F32x16 bound = splat(static_cast<float>(kWeightBound));
  const F32x16 peaks = load(highest);
  store(inverse, select_lt(peaks, splat(kSmallestBound), zero_f32(), div(bound, peaks)));
  store(step, div(peaks, bound));
  for (int r = 0; r < R; ++r) {
    for (int at = r * kBlock; at < r * kBlock + 16 * n_vectors; at += 16) {
      store_s16(weights + at, round_to_i32(mul(load(p + at), splat(inverse[r]))));
    }
  }
}

// The tile whose first position is `begin` for R rows. All rows go through the positions that any of them sees: a
// weight of 0 adds nothing, whatever integer lies there.
template <int R>
void attend_tile(const TileS16& tile, std::int64_t begin, const std::byte* queries, float* acc,
                 SoftmaxState<R>& state) {
  const SeenPositions<R> seen(state, begin);
  if (seen.most == 0) return;

  alignas(64) float p[R * kBlock];
  const int n_vectors = (seen.most + 15) / 16;
  tile_scores<R>(tile, n_vectors, queries, p);

  alignas(64) float alpha[16];
  alignas(64) float step[16];
  alignas(64) std::int16_t weights[R * kBlock];
  softmax_block<R>(seen.count, p, state, alpha);
  weigh_values<R>(tile, n_vectors, p, weights, step);
  const std::int64_t pairs = (seen.most + 1) / 2;
  std::int64_t c = 0;
  for (; c + 16 * kVectors<R> <= tile.dp; c += 16 * kVectors<R>) {
    value_vectors<R, kVectors<R>>(tile, pairs, c, weights, step, alpha, acc);
  }
  for (; c < tile.dp; c += 16) value_vectors<R, 1>(tile, pairs, c, weights, step, alpha, acc);
}

}  // namespace vila::kernels::VILA_ISA_NS
