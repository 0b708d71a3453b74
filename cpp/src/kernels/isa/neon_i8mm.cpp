// The kernels compiled for AArch64 with dotprod and i8mm.
#define VILA_ISA_NS neon_i8mm
#define VILA_OWN_BLOCKS "kernels/simd/block_smmla.h"
// The order matters.
// clang-format off
#include "kernels/simd/neon.h"
#include "kernels/simd/dot_sdot.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_neon_i8mm;
constinit const KernelTable k_neon_i8mm = neon_i8mm::make_table(Isa::neon_i8mm, "neon_i8mm");
}  // namespace vila::kernels
