// The kernels compiled for AVX-512 F, BW, VL, DQ.
#define VILA_ISA_NS avx512
// The order matters.
// clang-format off
#include "kernels/simd/avx512.h"
#include "kernels/simd/dot_maddubs512.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_avx512;
constinit const KernelTable k_avx512 = avx512::make_table(Isa::avx512, "avx512");
}  // namespace vila::kernels
