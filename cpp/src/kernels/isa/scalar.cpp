// The kernels compiled for every CPU.
#define VILA_ISA_NS scalar
// The order matters.
// clang-format off
#include "kernels/simd/scalar.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_scalar;
constinit const KernelTable k_scalar = scalar::make_table(Isa::scalar, "scalar");
}  // namespace vila::kernels
