// What this CPU and operating system can run. Compiled for the baseline.
#pragma once

#include "kernels/kernel_table.h"

namespace vila::kernels {

/// The instruction sets that matter to the kernels, with the operating system's consent (saved registers) included.
struct CpuFeatures {
  bool avx2_fma_f16c = false;
  bool avx_vnni = false;
  bool avx512_f_bw_vl_dq = false;
  bool avx512_vnni = false;
  bool neon = false;
  bool neon_dotprod = false;
  bool neon_i8mm = false;
};

/// Read once per process from cpuid, the auxiliary vector or sysctl.
const CpuFeatures& cpu_features();

/// Whether kernels compiled for `isa` can run with these features.
bool can_run(Isa isa, const CpuFeatures& features);

}  // namespace vila::kernels
