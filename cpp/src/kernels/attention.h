// Streaming-softmax attention (Milakov & Gimelshein, arXiv:1805.02867; blocks after Dao et al., arXiv:2205.14135) over
// the blocked cache of KvLayout, for prefill and decode, grouped heads included (Ainslie et al., arXiv:2305.13245).
//
// Shapes   q, out [M, H * D]; keys [Hkv][capacity/16][D][16], values [Hkv][capacity][Dp], f16 or f32. D <= kMaxHeadDim.
// Exact    a row's result depends on its q, its position and the cache only: blocks of 64 absolute positions, scores by
//          one fma per d ascending, outputs by one fma per position ascending. How rows are grouped changes no bit.
// Cost     both products run in one register-blocked loop (accumulate). Rows that share a pass over the cache read each
//          block from the first cache levels; one row alone reads keys and values once, at the speed of memory.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/simd/math.h"

namespace vila::kernels::VILA_ISA_NS {

inline F32x16 load_as_f32(const float* p) { return load(p); }
inline F32x16 load_as_f32(const std::uint16_t* p) { return load_f16(p); }

// Register blocks: rows times vectors of 16 that are accumulated at once. With one register per vector (AVX-512) 12 x 2
// fill 32 registers and halve the conversions from f16; with two (AVX2) or four (NEON) 6 x 1 fill the file.
inline constexpr bool kOneRegister = alignof(F32x16) == 64;
inline constexpr int kGroupRows = kOneRegister ? 12 : 6;
template <int R>
inline constexpr int kVectors = R == 1 ? 4 : (kOneRegister ? 2 : 1);

inline constexpr int kBlock = static_cast<int>(kAttentionBlock);
inline constexpr int kMaxGroups = 4;       // groups of rows that share one pass over the cache
inline constexpr int kStateFloats = 6144;  // their queries and accumulators: 24 KiB of stack
inline constexpr std::int64_t kMaxHeadDim = (kStateFloats - 16) / 2 / 16 * 16;

// acc[r][v] += sum over k ascending of a[k * AK + r * AR] * b[k * b_row + v * b_vector], one fma each.
template <int R, int NV, int AK, int AR, class T>
[[gnu::always_inline]] inline void accumulate(const float* a, const T* b, std::int64_t b_row, std::int64_t b_vector,
                                              std::int64_t n, F32x16 (&acc)[R][NV]) {
  for (std::int64_t k = 0; k < n; ++k) {
    F32x16 columns[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) columns[v] = load_as_f32(b + v * b_vector);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F32x16 x = splat(a[r * AR]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, columns[v], acc[r][v]);
    }
    a += AK;
    b += b_row;
  }
}

// Scores of NV vectors of 16 positions: p[r][0 .. 16 NV) = q[.][r] . keys.
template <int R, int NV, class T>
void score_vectors(const T* keys, std::int64_t d, const float* q, float* p) {
  F32x16 acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = zero_f32();
  }
  accumulate<R, NV, R, 1>(q, keys, 16, 16 * d, d, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(p + r * kBlock + 16 * v, acc[r][v]);
  }
}

// acc[r][.] = acc[r][.] * alpha[r] + sum over n positions ascending of p[r][j] * values[j][.], for NV vectors.
template <int R, int NV, class T>
void value_vectors(const T* values, std::int64_t dp, std::int64_t n, const float* p, const float* alpha, float* out) {
  F32x16 acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = mul(load(out + r * dp + 16 * v), splat(alpha[r]));
  }
  accumulate<R, NV, 1, kBlock>(p, values, dp, 16, n, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(out + r * dp + 16 * v, acc[r][v]);
  }
}

template <int R, class T>
void add_values(const T* values, std::int64_t dp, std::int64_t n, const float* p, const float* alpha, float* out) {
  constexpr int kStep = 16 * kVectors<R>;
  std::int64_t c = 0;
  for (; c + kStep <= dp; c += kStep) value_vectors<R, kVectors<R>>(values + c, dp, n, p, alpha, out + c);
  for (; c < dp; c += 16) value_vectors<R, 1>(values + c, dp, n, p, alpha, out + c);
}

// The running softmax of R rows that move through the cache together.
template <int R>
struct SoftmaxState {
  float max[16];          // per row; the lanes beyond R stay 0
  F32x16 sum[R];          // 16 partial sums per row
  std::int64_t limit[R];  // the row sees positions 0 .. limit - 1
};

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

// One block of 64 positions from `begin` for R rows. Values are read for seen positions only: what lies behind a row's
// limit, were it NaN, reaches no accumulator of that row.
template <int R, class T>
void attend_block(const T* keys, const T* values, std::int64_t d, std::int64_t dp, std::int64_t begin, const float* q,
                  float* acc, SoftmaxState<R>& state) {
  int count[R];
  int least = kBlock;
  int most = 0;
  for (int r = 0; r < R; ++r) {
    const std::int64_t seen = state.limit[r] - begin;
    count[r] = seen < 0 ? 0 : (seen > kBlock ? kBlock : static_cast<int>(seen));
    least = count[r] < least ? count[r] : least;
    most = count[r] > most ? count[r] : most;
  }
  if (most == 0) return;

  alignas(64) float p[R * kBlock];
  constexpr int kScoreVectors = kVectors<R>;
  const int n_vectors = (most + 15) / 16;
  int v = 0;
  for (; v + kScoreVectors <= n_vectors; v += kScoreVectors) {
    score_vectors<R, kScoreVectors>(keys + v * 16 * d, d, q, p + 16 * v);
  }
  for (; v < n_vectors; ++v) score_vectors<R, 1>(keys + v * 16 * d, d, q, p + 16 * v);
  for (; v < kBlock / 16; ++v) {  // not seen by any row
    for (int r = 0; r < R; ++r) store(p + r * kBlock + 16 * v, zero_f32());
  }

  alignas(64) float alpha[16];
  softmax_block<R>(count, p, state, alpha);
  add_values<R>(values, dp, least, p, alpha, acc);
  if constexpr (R > 1) {
    const float one = 1.0F;
    for (int r = 0; r < R; ++r) {
      if (count[r] == least) continue;
      add_values<1>(values + least * dp, dp, count[r] - least, p + r * kBlock + least, &one, acc + r * dp);
    }
  }
}

// Rows in groups of R; a last group that is not full repeats its last row and drops the copies.
template <int R, class T>
void attend_rows(const AttentionArgs& p, std::int64_t head, Range rows) {
  const std::int64_t d = p.cache.head_dim;
  const std::int64_t dp = (d + 15) / 16 * 16;
  const std::int64_t kv_head = head / (p.n_heads / p.cache.n_kv_heads);
  const T* keys = static_cast<const T*>(p.cache.k) + kv_head * p.cache.capacity * d;
  const T* values = static_cast<const T*>(p.cache.v) + kv_head * p.cache.capacity * dp;

  alignas(64) float memory[kStateFloats];
  SoftmaxState<R> states[kMaxGroups];
  const std::int64_t group_floats = R * (d + dp);
  const std::int64_t fitting = kStateFloats / group_floats;
  const std::int64_t groups_per_pass = fitting < kMaxGroups ? fitting : kMaxGroups;

  for (std::int64_t first = rows.begin; first < rows.end;) {
    std::int64_t n_groups = (rows.end - first + R - 1) / R;
    n_groups = n_groups < groups_per_pass ? n_groups : groups_per_pass;
    std::int64_t limit = 0;
    for (std::int64_t g = 0; g < n_groups; ++g) {
      float* acc = memory + g * group_floats;
      float* q = acc + R * dp;
      SoftmaxState<R>& state = states[g];
      for (int lane = R; lane < 16; ++lane) state.max[lane] = 0.0F;
      for (int r = 0; r < R; ++r) {
        const std::int64_t wanted = first + g * R + r;
        const std::int64_t m = wanted < rows.end ? wanted : rows.end - 1;
        const std::int64_t causal_limit = p.first_position + m + 1;
        state.limit[r] = p.causal && causal_limit < p.n_positions ? causal_limit : p.n_positions;
        limit = state.limit[r] > limit ? state.limit[r] : limit;
        state.max[r] = -__builtin_inff();
        state.sum[r] = zero_f32();
        const float* row = p.q + m * p.q_stride + head * d;
        for (std::int64_t i = 0; i < d; ++i) q[i * R + r] = row[i] * p.scale;
        for (std::int64_t i = 0; i < dp; i += 16) store(acc + r * dp + i, zero_f32());
      }
    }

    for (std::int64_t begin = 0; begin < limit; begin += kBlock) {
      for (std::int64_t g = 0; g < n_groups; ++g) {
        float* acc = memory + g * group_floats;
        attend_block<R>(keys + begin * d, values + begin * dp, d, dp, begin, acc + R * dp, acc, states[g]);
      }
    }

    for (std::int64_t i = 0; i < n_groups * R && first + i < rows.end; ++i) {
      const float* acc = memory + i / R * group_floats + i % R * dp;
      const F32x16 total = splat(reduce_add(states[i / R].sum[i % R]));
      float* out = p.out + (first + i) * p.out_stride + head * d;
      for (std::int64_t c = 0; c < d; c += 16) {
        const int n = static_cast<int>(d - c < 16 ? d - c : 16);
        store_partial(out + c, div(load(acc + c), total), n);
      }
    }
    first += n_groups * R;
  }
}

template <class T>
void attend(const AttentionArgs& p, std::int64_t head, Range rows) {
  const std::int64_t d = p.cache.head_dim;
  const bool group_fits = kGroupRows * (d + (d + 15) / 16 * 16) <= kStateFloats;
  if (rows.end - rows.begin == 1 || !group_fits) return attend_rows<1, T>(p, head, rows);
  attend_rows<kGroupRows, T>(p, head, rows);
}

static void attention(const AttentionArgs& p, std::int64_t head, Range rows) {
  if (p.cache.f16) return attend<std::uint16_t>(p, head, rows);
  attend<float>(p, head, rows);
}

}  // namespace vila::kernels::VILA_ISA_NS
