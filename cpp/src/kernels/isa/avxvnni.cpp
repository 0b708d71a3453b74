// The kernels compiled for AVX2 with AVX-VNNI.
#define VILA_ISA_NS avxvnni
// The order matters.
// clang-format off
#include "kernels/simd/avx2.h"
#include "kernels/simd/dot_vnni.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_avxvnni;
constinit const KernelTable k_avxvnni = avxvnni::make_table(Isa::avxvnni, "avxvnni");
}  // namespace vila::kernels
