// The kernels compiled for AArch64.
#define VILA_ISA_NS neon
// The order matters.
// clang-format off
#include "kernels/simd/neon.h"
#include "kernels/simd/dot_mull.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_neon;
constinit const KernelTable k_neon = neon::make_table(Isa::neon, "neon");
}  // namespace vila::kernels
