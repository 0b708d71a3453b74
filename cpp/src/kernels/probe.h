// What the arithmetic units can do at best: chains of the dot product and of the fused multiply-add on registers alone.
// Benchmarks put a kernel's rate beside these.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

// Independent sums that hide the latency of an instruction and fit the registers: one register a vector with AVX-512.
inline constexpr int kProbeSums = alignof(F32x16) == 64 ? 12 : 5;

inline std::int64_t probe_dot(std::int64_t steps, const std::uint8_t* w, const std::int8_t* a, float* sink) {
  const W8 weights = low_nibbles(load_w4(w));
  S4 sum[kProbeSums];
  VILA_UNROLL for (int i = 0; i < kProbeSums; ++i) sum[i] = zero_s4();
  for (std::int64_t step = 0; step < steps; ++step) {
    // Every sum has activations of its own: equal products would be computed once.
    const std::int8_t* quads = a + step % 4;
    VILA_UNROLL for (int i = 0; i < kProbeSums; ++i) sum[i] = dot4_u(sum[i], weights, load_a4(quads + 4 * i));
  }
  I32x16 total = zero_i32();
  VILA_UNROLL for (int i = 0; i < kProbeSums; ++i) total = add(total, widen(sum[i]));
  store(sink, to_f32(total));
  return steps * kProbeSums * 64;
}

inline std::int64_t probe_fma(std::int64_t steps, const float* x, float* sink) {
  const F32x16 factor = load(x);
  F32x16 sum[kProbeSums];
  // Every sum starts from a value of its own: equal sums would be computed once.
  VILA_UNROLL for (int i = 0; i < kProbeSums; ++i) sum[i] = splat(static_cast<float>(i));
  for (std::int64_t step = 0; step < steps; ++step) {
    VILA_UNROLL for (int i = 0; i < kProbeSums; ++i) sum[i] = fma(factor, factor, sum[i]);
  }
  F32x16 total = zero_f32();
  VILA_UNROLL for (int i = 0; i < kProbeSums; ++i) total = add(total, sum[i]);
  store(sink, total);
  return steps * kProbeSums * 16;
}

/// The largest of n floats, n a multiple of 64: four streams of loads and nothing else that takes time.
inline float probe_read(const float* x, std::int64_t n) {
  F32x16 largest[4];
  VILA_UNROLL for (int i = 0; i < 4; ++i) largest[i] = zero_f32();
  for (std::int64_t at = 0; at < n; at += 64) {
    prefetch(x + at + 1024);
    prefetch(x + at + 1040);
    prefetch(x + at + 1056);
    prefetch(x + at + 1072);
    VILA_UNROLL for (int i = 0; i < 4; ++i) largest[i] = max(largest[i], load(x + at + 16 * i));
  }
  return reduce_max(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
}

}  // namespace vila::kernels::VILA_ISA_NS
