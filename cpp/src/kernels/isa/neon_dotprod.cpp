// The kernels compiled for AArch64 with dotprod.
#define VILA_ISA_NS neon_dotprod
#define VILA_OWN_BLOCKS "kernels/simd/block_sdot.h"
// The order matters.
// clang-format off
#include "kernels/simd/neon.h"
#include "kernels/simd/dot_sdot.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_neon_dotprod;
constinit const KernelTable k_neon_dotprod = neon_dotprod::make_table(Isa::neon_dotprod, "neon_dotprod");
}  // namespace vila::kernels
