// Streaming-softmax attention (Milakov & Gimelshein, arXiv:1805.02867; blocks after Dao et al., arXiv:2205.14135) over
// the blocked cache of KvLayout, for prefill and decode, grouped heads included (Ainslie et al., arXiv:2305.13245).
//
// Shapes   q, out [M, H * D]; tiles of keys [D][64] and values [64][Dp], f32, f16 or int8 with scales; D up to 256.
//          Tiles of int16 are attention_s16.h's, and so is their arithmetic.
// Exact    a query's result depends on its q, its position and the cache only: tiles of 64 absolute positions, scores
//          by one fma per d ascending (int8: then times the key's scale), outputs by one fma per position ascending
//          (int8: of the weight times the value's scale). How queries are grouped changes no bit.
// Cost     both products run in one register-blocked loop (accumulate). Queries that share a pass over the cache read
//          each tile from the first cache levels; a few alone read every tile once, front to back, at the speed of
//          memory, while the part that comes next is asked for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention_rows.h"
#include "kernels/attention_s16.h"
#include "kernels/head_columns.h"

namespace vila::kernels::VILA_ISA_NS {

inline F32x16 load_as_f32(const float* p) { return load(p); }
inline F32x16 load_as_f32(const std::uint16_t* p) { return load_f16(p); }
inline F32x16 load_as_f32(const std::int8_t* p) { return to_f32(load_s8(p)); }

template <int R>
inline constexpr int kValueVectors = R == 1 && kOneRegister ? 8 : kVectors<R>;

inline constexpr int kMaxGroups = 4;           // groups of rows that share one pass over the cache
inline constexpr int kStateBytes = 24 * 1024;  // their queries and accumulators, on the stack
static_assert(kGroupRows * 2 * kMaxHeadDim * 4 <= kStateBytes);

// acc[r][v] += sum over k ascending of a[k * AK + r * AR] * b[k * b_row + 16 v], one fma each. Few rows read b from
// memory: what lies `ahead` elements further is asked for at the same time, for the second cache level, because the
// first one has too few lines under way to keep up with memory.
template <int R, int NV, int AK, int AR, class T>
[[gnu::always_inline]] inline void accumulate(const float* a, const T* b, std::int64_t b_row, std::int64_t ahead,
                                              std::int64_t n, F32x16 (&acc)[R][NV]) {
  for (std::int64_t k = 0; k < n; ++k) {
    if constexpr (R <= kFewRows) {
      constexpr int kLine = 64 / sizeof(T);
#pragma GCC unroll 8
      for (int i = 0; i < 16 * NV; i += kLine) prefetch_l2(b + ahead + i);
    }
    F32x16 columns[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) columns[v] = load_as_f32(b + 16 * v);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F32x16 x = splat(a[r * AR]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, columns[v], acc[r][v]);
    }
    a += AK;
    b += b_row;
  }
}

// One block of positions of one KV head, as KvLayout describes it.
template <class T>
struct Tile {
  static constexpr bool kScaled = sizeof(T) == 1;
  const T* keys;              // [D][64]
  const T* values;            // [64][Dp]
  const float* key_scales;    // [64], int8 only
  const float* value_scales;  // [64], int8 only
  std::int64_t d, dp;
  std::int64_t next;  // elements from the values to the keys of the next tile

  Tile(const KvLayout& cache, std::int64_t kv_head, std::int64_t block) : d(cache.head_dim), dp(cache.padded_dim()) {
    const char* at = static_cast<const char*>(cache.data) + block * cache.block_stride + kv_head * cache.tile_bytes();
    keys = reinterpret_cast<const T*>(at);
    values = reinterpret_cast<const T*>(at + cache.key_bytes());
    key_scales = reinterpret_cast<const float*>(at + cache.key_bytes() + cache.value_bytes());
    value_scales = key_scales + kBlock;
    next = (cache.block_stride - cache.key_bytes()) / static_cast<std::int64_t>(sizeof(T));
  }

  // R queries in memory: f32 [D][R], times the softmax's scale.
  template <int R>
  static constexpr std::int64_t query_bytes(std::int64_t d) {
    return d * R * 4;
  }
  template <int R>
  static void set_query(const float* row, std::int64_t d, float scale, int r, std::byte* queries) {
    auto* q = reinterpret_cast<float*>(queries);
    for (std::int64_t i = 0; i < d; ++i) q[i * R + r] = row[i] * scale;
  }
};

// Scores of NV vectors of 16 positions from the one of that number: p[r][0 .. 16 NV) = q[.][r] . keys.
template <int R, int NV, class T>
void score_vectors(const Tile<T>& tile, int first, const float* q, float* p) {
  F32x16 acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = zero_f32();
  }
  accumulate<R, NV, R, 1>(q, tile.keys + 16 * first, kBlock, kBlock * tile.d, tile.d, acc);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const int at = 16 * (first + v);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      if constexpr (Tile<T>::kScaled) acc[r][v] = mul(acc[r][v], load(tile.key_scales + at));
      store(p + r * kBlock + at, acc[r][v]);
    }
  }
}

// Columns c .. c + 16 NV: acc[r][.] = acc[r][.] * alpha[r] + sum over positions begin .. end of the tile ascending of
// p[r][j] * values[j][.].
template <int R, int NV, class T>
void value_vectors(const Tile<T>& tile, std::int64_t begin, std::int64_t end, std::int64_t c, const float* p,
                   const float* alpha, float* out) {
  F32x16 acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = mul(load(out + r * tile.dp + c + 16 * v), splat(alpha[r]));
  }
  accumulate<R, NV, 1, kBlock>(p + begin, tile.values + begin * tile.dp + c, tile.dp, tile.next, end - begin, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store(out + r * tile.dp + c + 16 * v, acc[r][v]);
  }
}

template <int R, class T>
void add_values(const Tile<T>& tile, std::int64_t begin, std::int64_t end, const float* p, const float* alpha,
                float* out) {
  constexpr int kMost = kValueVectors<R>;
  constexpr int kSome = kVectors<R>;
  std::int64_t c = 0;
  for (; c + 16 * kMost <= tile.dp; c += 16 * kMost) value_vectors<R, kMost>(tile, begin, end, c, p, alpha, out);
  for (; c + 16 * kSome <= tile.dp; c += 16 * kSome) value_vectors<R, kSome>(tile, begin, end, c, p, alpha, out);
  for (; c < tile.dp; c += 16) value_vectors<R, 1>(tile, begin, end, c, p, alpha, out);
}

// The tile whose first position is `begin` for R rows. Values are read for seen positions only: what lies behind a
// row's limit, were it NaN, reaches no accumulator of that row.
template <int R, class T>
void attend_tile(const Tile<T>& tile, std::int64_t begin, const std::byte* queries, float* acc,
                 SoftmaxState<R>& state) {
  const SeenPositions<R> seen(state, begin);
  if (seen.most == 0) return;

  const auto* q = reinterpret_cast<const float*>(queries);
  alignas(64) float p[R * kBlock];
  const int n_vectors = (seen.most + 15) / 16;
  tile_scores<R>(tile, n_vectors, q, p);

  alignas(64) float alpha[16];
  softmax_block<R>(seen.count, p, state, alpha);
  if constexpr (Tile<T>::kScaled) {
    for (int at = 0; at < 16 * n_vectors; at += 16) {
      const F32x16 scales = load(tile.value_scales + at);
      for (int r = 0; r < R; ++r) store(p + r * kBlock + at, mul(load(p + r * kBlock + at), scales));
    }
  }
  add_values<R>(tile, 0, seen.least, p, alpha, acc);
  if constexpr (R > 1) {
    const float one = 1.0F;
    for (int r = 0; r < R; ++r) {
      if (seen.count[r] == seen.least) continue;
      add_values<1>(tile, seen.least, seen.count[r], p + r * kBlock, &one, acc + r * tile.dp);
    }
  }
}

// Queries in groups of R; a last group that is not full repeats its last query and drops the copies.
template <int R, class AnyTile>
void attend_queries(const AttentionArgs& p, std::int64_t kv_head, Range queries) {
  const std::int64_t d = p.cache.head_dim;
  const std::int64_t dp = p.cache.padded_dim();
  const std::int64_t sharing = p.n_heads / p.cache.n_kv_heads;  // query heads of one KV head

  alignas(64) std::byte memory[kStateBytes];  // of each group the accumulators [R][Dp], then the queries
  SoftmaxState<R> states[kMaxGroups];
  const std::int64_t acc_bytes = R * dp * 4;
  const std::int64_t group_bytes = acc_bytes + AnyTile::template query_bytes<R>(d);
  const std::int64_t fitting = kStateBytes / group_bytes;
  const std::int64_t groups_per_pass = fitting < kMaxGroups ? fitting : kMaxGroups;
  const auto columns_of = [&](std::int64_t query) {
    return p.q + query / sharing * p.q_stride + (kv_head * sharing + query % sharing) * d;
  };

  for (std::int64_t first = queries.begin; first < queries.end;) {
    std::int64_t n_groups = (queries.end - first + R - 1) / R;
    n_groups = n_groups < groups_per_pass ? n_groups : groups_per_pass;
    std::int64_t limit = 0;
    for (std::int64_t g = 0; g < n_groups; ++g) {
      auto* acc = reinterpret_cast<float*>(memory + g * group_bytes);
      SoftmaxState<R>& state = states[g];
      for (int lane = R; lane < 16; ++lane) state.max[lane] = 0.0F;
      for (int r = 0; r < R; ++r) {
        const std::int64_t wanted = first + g * R + r;
        const std::int64_t query = wanted < queries.end ? wanted : queries.end - 1;
        const std::int64_t m = query / sharing;
        const std::int64_t causal_limit = p.first_position + m + 1;
        state.limit[r] = p.causal && causal_limit < p.n_positions ? causal_limit : p.n_positions;
        limit = state.limit[r] > limit ? state.limit[r] : limit;
        state.max[r] = -__builtin_inff();
        state.sum[r] = zero_f32();
        if (query + kRowsAhead < queries.end) prefetch_columns(columns_of(query + kRowsAhead), d);
        AnyTile::template set_query<R>(columns_of(query), d, p.scale, r, memory + g * group_bytes + acc_bytes);
        for (std::int64_t i = 0; i < dp; i += 16) store(acc + r * dp + i, zero_f32());
      }
    }

    for (std::int64_t block = 0; block * kBlock < limit; ++block) {
      const AnyTile tile(p.cache, kv_head, block);
      for (std::int64_t g = 0; g < n_groups; ++g) {
        std::byte* group = memory + g * group_bytes;
        attend_tile<R>(tile, block * kBlock, group + acc_bytes, reinterpret_cast<float*>(group), states[g]);
      }
    }

    for (std::int64_t i = 0; i < n_groups * R && first + i < queries.end; ++i) {
      const std::int64_t query = first + i;
      const auto* acc = reinterpret_cast<const float*>(memory + i / R * group_bytes) + i % R * dp;
      const F32x16 total = splat(reduce_add(states[i / R].sum[i % R]));
      float* out = p.out + query / sharing * p.out_stride + (kv_head * sharing + query % sharing) * d;
      for (std::int64_t c = 0; c < d; c += 16) {
        const int n = static_cast<int>(d - c < 16 ? d - c : 16);
        store_partial(out + c, div(load(acc + c), total), n);
      }
    }
    first += n_groups * R;
  }
}

template <class AnyTile>
void attend(const AttentionArgs& p, std::int64_t kv_head, Range queries) {
  const std::int64_t n = queries.end - queries.begin;
  if (n > kFewRows) return attend_queries<kGroupRows, AnyTile>(p, kv_head, queries);
  if (n > 1) return attend_queries<kFewRows, AnyTile>(p, kv_head, queries);
  attend_queries<1, AnyTile>(p, kv_head, queries);
}

static void attention(const AttentionArgs& p, std::int64_t kv_head, Range queries) {
  switch (p.cache.type) {
    case KvType::f32:
      return attend<Tile<float>>(p, kv_head, queries);
    case KvType::f16:
      return attend<Tile<std::uint16_t>>(p, kv_head, queries);
    case KvType::int8:
      return attend<Tile<std::int8_t>>(p, kv_head, queries);
    case KvType::int16:
      return attend<TileS16>(p, kv_head, queries);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
