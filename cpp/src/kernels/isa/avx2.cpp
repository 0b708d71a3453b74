// The kernels compiled for AVX2, FMA and F16C.
#define VILA_ISA_NS avx2
#include "kernels/simd/avx2.h"
#include "kernels/simd/dot_maddubs.h"
#include "kernels/make_table.h"

namespace vila::kernels {
extern const KernelTable k_avx2;
constinit const KernelTable k_avx2 = avx2::make_table(Isa::avx2, "avx2");
}  // namespace vila::kernels
