// The contract of the 16-lane vector layer. Every kernel is written against these names; one header per instruction
// set (scalar.h, avx2.h, avx512.h, neon.h) fulfils them inside namespace vila::kernels::<isa>, which the including
// translation unit names through the macro VILA_ISA_NS before including anything. This file only documents.
//
// Types (values, passed by value):
//   F32x16  16 floats          one zmm, two ymm, four q registers, or an array
//   I32x16  16 int32
//
// F32x16
//   zero_f32() splat(float) load(const float*) store(float*, F32x16)       unaligned
//   load_partial(const float*, int n) store_partial(float*, F32x16, int n) first n lanes, 0..16; others read as 0
//   load_f16(const uint16_t*) store_f16(uint16_t*, F32x16)                 IEEE half, round to nearest even
//   add sub mul div min max (a, b)    min and max return the second operand when an operand is NaN
//   fma(a, b, c) = a * b + c rounded once    fnma(a, b, c) = c - a * b rounded once    sqrt(a)
//   neg(a) abs(a) round_even(a) select_lt(a, b, x, y)                      lane: a < b ? x : y
//   reduce_add(a) reduce_max(a)       fixed tree: lanes i and i+8, then i+4, then i+2, then i+1
//   scale_exp2(a, n)                  a * 2^n for |a| in [1/4, 4] and whole numbers n in -252..252, rounded once
//
// I32x16
//   zero_i32() splat_i32(int) add(a, b) to_f32(a) (round to nearest even) round_to_i32(F32x16)
//   load_u8(const uint8_t*) -> I32x16 (zero extended)   load_s8(const int8_t*) -> I32x16 (sign extended)
//   store_s8(int8_t*, I32x16)         lanes must lie in -128..127
//   store_s16(int16_t*, I32x16)       lanes must lie in -32768..32767
//
// Pairs of int16
//   Pairs load_pairs(const int16_t*)  16 lanes of two      Pair load_pair(const int16_t*)  two, for all lanes
//   dot2_s16(I32x16 acc, Pairs, Pair) acc + both products of each lane; what is summed must fit 32 bits
//
// Packed weights (see docs/FORMATS.md)
//   W4  load_w4(const uint8_t*)       64 bytes, 16 rows x 8 columns of nibbles
//   W8  low_nibbles(W4)  high_nibbles(W4)   columns k..k+3 and k+4..k+7 as 16 rows x 4 unsigned bytes 0..15
//   store_w8(uint8_t*, W8)            its 64 bytes, for reload_w8(const uint8_t*)
//   prefetch(const void*)  prefetch_l2(const void*)   a hint: bring a line to the first or the second level
// From the dot_*.h headers, one per multiply instruction:
//   A4  load_a4(const int8_t*)        four activations, broadcast to every row
//   S4  zero_s4()                     sums of nibbles times activations of at most 32 columns, 16 rows
//   dot4_u(S4 acc, W8 w, A4 a)        acc + sum over 4 columns of w (0..15) * a, exact for 8 calls after zero_s4
//   widen(S4) -> I32x16
//   W8  load_w8(const uint8_t*)       64 bytes, 16 rows x 4 columns of signed bytes -127..127, as dot4_s wants them
//   dot2_s16                          on x86; NEON and scalar have it in their own headers
//   dot4_s(I32x16 acc, W8 w, A4 a)    acc + sum over 4 columns of (w + kW8Bias) * a, exact; the kernel takes
//   kW8Bias                           kW8Bias * sum(a) back once per group
//   PanelS8                           how int8 weights stand in a panel that many rows share: kPanelBytes, unpack,
//   panel_dot and, where kPanelBytes is 2, widen for the activations; panel_bytes.h serves all but AVX2
//   hold_in_registers(S4 or I32x16&)  a sum stays in registers between the steps of an unrolled loop
//   hold_beside_sums(F32x16&)         a scaled dot leaves the registers to the sums if there are few; neither changes a
//   value, and both are empty where the compiler does so by itself
//   kFloatRows kFloatTiles            accumulators (rows x tiles of 16) that the registers hold in a float product
//   kDotRows kDotTiles                the same of an integer product, which has three vectors for each
//   kPanelColumns                     columns that are unpacked at once for many rows, for 128 outputs: what the
//                                     second-level cache and a thread's stack hold
// Results must be bitwise equal on every instruction set.
#pragma once
