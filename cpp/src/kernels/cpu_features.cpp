#include "kernels/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <cstdint>

namespace vila::kernels {
namespace {

#if defined(__x86_64__)

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool bit(unsigned value, int index) { return ((value >> index) & 1U) != 0; }

// Which register files the operating system saves; only valid when OSXSAVE is set.
std::uint64_t enabled_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

CpuFeatures detect() {
  CpuFeatures features;
  const Registers leaf1 = cpuid(1, 0);
  if (!bit(leaf1.ecx, 27)) return features;  // OSXSAVE
  const std::uint64_t state = enabled_state();
  const bool ymm = (state & 0x6) == 0x6;
  const bool zmm = (state & 0xe6) == 0xe6;
  const Registers leaf7 = cpuid(7, 0);
  const bool fma = bit(leaf1.ecx, 12);
  const bool f16c = bit(leaf1.ecx, 29);
  features.avx2_fma_f16c = ymm && bit(leaf7.ebx, 5) && fma && f16c;
  features.avx_vnni = features.avx2_fma_f16c && leaf7.eax >= 1 && bit(cpuid(7, 1).eax, 4);
  features.avx512_f_bw_vl_dq = features.avx2_fma_f16c && zmm && bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) &&
                               bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31);
  features.avx512_vnni = features.avx512_f_bw_vl_dq && bit(leaf7.ecx, 11);
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

CpuFeatures detect() {
  constexpr unsigned long kHwcapAsimdDp = 1UL << 20;
  constexpr unsigned long kHwcap2I8mm = 1UL << 13;
  CpuFeatures features;
  features.neon = true;  // part of every AArch64 CPU
  features.neon_dotprod = (getauxval(AT_HWCAP) & kHwcapAsimdDp) != 0;
  features.neon_i8mm = features.neon_dotprod && (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
  return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

bool sysctl_flag(const char* name) {
  int value = 0;
  std::size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

CpuFeatures detect() {
  CpuFeatures features;
  features.neon = true;
  features.neon_dotprod = sysctl_flag("hw.optional.arm.FEAT_DotProd");
  features.neon_i8mm = features.neon_dotprod && sysctl_flag("hw.optional.arm.FEAT_I8MM");
  return features;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

bool can_run(Isa isa, const CpuFeatures& f) {
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return f.avx2_fma_f16c;
    case Isa::avxvnni:
      return f.avx_vnni;
    case Isa::avx512:
      return f.avx512_f_bw_vl_dq;
    case Isa::avx512vnni:
      return f.avx512_vnni;
    case Isa::neon:
      return f.neon;
    case Isa::neon_dotprod:
      return f.neon_dotprod;
    case Isa::neon_i8mm:
      return f.neon_i8mm;
  }
  return false;
}

}  // namespace vila::kernels
