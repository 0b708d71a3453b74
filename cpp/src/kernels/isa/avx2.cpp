// The kernels compiled for AVX2, FMA and F16C.
#define VILA_ISA_NS avx2
// The order matters.
// clang-format off
#include "kernels/simd/avx2.h"
#include "kernels/simd/dot_maddubs.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_avx2;
constinit const KernelTable k_avx2 = avx2::make_table(Isa::avx2, "avx2");
}  // namespace vila::kernels
