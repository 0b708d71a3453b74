// Loads that cost no instruction besides themselves, for the register blocks of block_sdot.h and block_smmla.h.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

/// Moves p on, after the load or store there. The compiler must not know by how much: it would compute each address of
/// an unrolled loop by an instruction of its own instead of letting the load step.
template <class T>
VILA_INLINE void advance(T*& p, std::int64_t count) {
  p += count;
  asm("" : "+r"(p));
}

/// 64 bytes of a panel or of packed activations; p moves on.
template <class T>
VILA_INLINE int8x16x4_t load_step(const T*& p) {
  const int8x16x4_t bytes = vld1q_s8_x4(reinterpret_cast<const std::int8_t*>(p));
  advance(p, 64);
  return bytes;
}

/// 64 bytes; p moves on.
VILA_INLINE void store_step(std::uint8_t*& p, int8x16x4_t bytes) {
  vst1q_s8_x4(reinterpret_cast<std::int8_t*>(p), bytes);
  advance(p, 64);
}

/// Zeros come in pairs from memory: half the instructions, on load pipes that idle while the vector pipes are busy.
VILA_INLINE void load_zeros(int32x4_t& first, int32x4_t& second) {
  alignas(32) static constexpr std::int32_t kZeros[8] = {};
  asm volatile("ldp %q0, %q1, [%2]" : "=w"(first), "=w"(second) : "r"(kZeros));
}

/// Eight floats; p moves on.
VILA_INLINE void store_step(float*& p, float32x4_t first, float32x4_t second) {
  asm volatile("stp %q1, %q2, [%0], #32" : "+r"(p) : "w"(first), "w"(second) : "memory");
}

}  // namespace vila::kernels::VILA_ISA_NS
