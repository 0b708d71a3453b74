// Instantiates every kernel for the instruction set whose vector header was included before, and fills its table.
#pragma once

#include "kernels/kernel_table.h"

// The order matters.
// clang-format off
#include "kernels/quantize_s8.h"
#include "kernels/quantize_s16.h"
#include "kernels/matmul_q.h"
#include "kernels/matmul_f.h"
#include "kernels/simd/math.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "kernels/activation.h"
#include "kernels/elementwise.h"
#include "kernels/kv_append.h"
#include "kernels/attention.h"
#include "kernels/convert.h"
#include "kernels/probe.h"
// clang-format on

namespace vila::kernels::VILA_ISA_NS {

constexpr KernelTable make_table(Isa isa, const char* name) {
  return {isa,      name,       quantize_s8, matmul_w4,  matmul_w8, matmul_f32, matmul_f16,
          rms_norm, layer_norm, rope,        kv_append,  attention, silu_mul,   unary,
          add_rows, scale_add,  f16_to_f32,  f32_to_f16, probe_dot, probe_fma,  probe_read};
}

}  // namespace vila::kernels::VILA_ISA_NS

#undef VILA_UNROLL
