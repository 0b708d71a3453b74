#include "handwritten_w4.h"

#if defined(__x86_64__)
#include <cstring>

#include <immintrin.h>
#endif

namespace vila::bench {

#if defined(__x86_64__)
namespace {

using kernels::MatmulQArgs;
using kernels::Range;

constexpr std::int64_t kGroup = 128;
constexpr std::int64_t kPrefetch = 1536;

std::int32_t quad(const std::int8_t* a) {
  std::int32_t value = 0;
  std::memcpy(&value, a, sizeof value);
  return value;
}

// Four tiles side by side; sums of 32 columns in 32-bit lanes, scaled, then the group's scale and zero point.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma"))) void avx512vnni(const MatmulQArgs& p,
                                                                                                  Range tiles) {
  const std::int64_t groups = p.k_padded / kGroup;
  const std::int64_t stride = p.k_padded * 8;
  const __m512i low = _mm512_set1_epi8(15);
  for (std::int64_t tile = tiles.begin; tile < tiles.end; tile += 4) {
    const std::uint8_t* w = p.w + tile * stride;
    const std::int8_t* a = p.a;
    __m512 acc[4] = {};
    for (std::int64_t g = 0; g < groups; ++g) {
      __m512 dots[4] = {};
      for (std::int64_t s = 0; s < 4; ++s) {
        __m512i sum[4] = {};
        for (int load = 0; load < 4; ++load, w += 64, a += 8) {
          const __m512i first = _mm512_set1_epi32(quad(a));
          const __m512i second = _mm512_set1_epi32(quad(a + 4));
          for (int t = 0; t < 4; ++t) {
            _mm_prefetch(reinterpret_cast<const char*>(w + t * stride + kPrefetch), _MM_HINT_T0);
            const __m512i both = _mm512_loadu_si512(w + t * stride);
            sum[t] = _mm512_dpbusd_epi32(sum[t], _mm512_and_si512(both, low), first);
            sum[t] = _mm512_dpbusd_epi32(sum[t], _mm512_and_si512(_mm512_srli_epi16(both, 4), low), second);
          }
        }
        const __m512 scale = _mm512_set1_ps(p.a_scale[g * 4 + s]);
        for (int t = 0; t < 4; ++t) dots[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), scale, dots[t]);
      }
      const __m512 weighted = _mm512_set1_ps(p.a_weighted[g]);
      for (int t = 0; t < 4; ++t) {
        const std::int64_t at = ((tile + t) * groups + g) * 16;
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.w_scale + at)));
        const __m512 zero =
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.w_zero + at))));
        acc[t] = _mm512_fmadd_ps(dots[t], scale, acc[t]);
        acc[t] = _mm512_fnmadd_ps(_mm512_mul_ps(zero, scale), weighted, acc[t]);
      }
    }
    for (int t = 0; t < 4; ++t) _mm512_storeu_ps(p.y + (tile + t) * 16, acc[t]);
  }
}

// One tile of 16 rows at a time: two registers of 16-bit sums over 32 columns.
__attribute__((target("avx2,f16c,fma"))) void avx2(const MatmulQArgs& p, Range tiles) {
  const std::int64_t groups = p.k_padded / kGroup;
  const std::int64_t stride = p.k_padded * 8;
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::int64_t tile = tiles.begin; tile < tiles.end; tile += 2) {
    const std::uint8_t* w = p.w + tile * stride;
    const std::int8_t* a = p.a;
    __m256 acc[4] = {};
    for (std::int64_t g = 0; g < groups; ++g) {
      __m256 dots[4] = {};
      for (std::int64_t s = 0; s < 4; ++s) {
        __m256i sum[4] = {};
        for (int load = 0; load < 4; ++load, w += 64, a += 8) {
          const __m256i first = _mm256_set1_epi32(quad(a));
          const __m256i second = _mm256_set1_epi32(quad(a + 4));
          for (int t = 0; t < 2; ++t) {
            _mm_prefetch(reinterpret_cast<const char*>(w + t * stride + kPrefetch), _MM_HINT_T0);
            for (int h = 0; h < 2; ++h) {
              const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + t * stride + 32 * h));
              const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
              __m256i& lane = sum[2 * t + h];
              lane = _mm256_add_epi16(lane, _mm256_maddubs_epi16(_mm256_and_si256(both, low), first));
              lane = _mm256_add_epi16(lane, _mm256_maddubs_epi16(high, second));
            }
          }
        }
        const __m256 scale = _mm256_set1_ps(p.a_scale[g * 4 + s]);
        for (int i = 0; i < 4; ++i) {
          dots[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(sum[i], ones)), scale, dots[i]);
        }
      }
      const __m256 weighted = _mm256_set1_ps(p.a_weighted[g]);
      for (int i = 0; i < 4; ++i) {
        const std::int64_t at = ((tile + i / 2) * groups + g) * 16 + i % 2 * 8;
        const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.w_scale + at)));
        const __m256 zero =
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p.w_zero + at))));
        acc[i] = _mm256_fmadd_ps(dots[i], scale, acc[i]);
        acc[i] = _mm256_fnmadd_ps(_mm256_mul_ps(zero, scale), weighted, acc[i]);
      }
    }
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(p.y + (tile + i / 2) * 16 + i % 2 * 8, acc[i]);
  }
}

}  // namespace

Product handwritten_w4(std::string_view isa) {
  if (isa == "avx512vnni" && __builtin_cpu_supports("avx512vnni")) return &avx512vnni;
  if (isa == "avx2" && __builtin_cpu_supports("avx2")) return &avx2;
  return nullptr;
}
#else
Product handwritten_w4(std::string_view) { return nullptr; }
#endif

}  // namespace vila::bench
