// The kernels compiled for AVX-512 with VNNI.
#define VILA_ISA_NS avx512vnni
// The order matters.
// clang-format off
#include "kernels/simd/avx512.h"
#include "kernels/simd/dot_vnni512.h"
#include "kernels/make_table.h"
// clang-format on

namespace vila::kernels {
extern const KernelTable k_avx512vnni;
constinit const KernelTable k_avx512vnni = avx512vnni::make_table(Isa::avx512vnni, "avx512vnni");
}  // namespace vila::kernels
