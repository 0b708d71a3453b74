// Half precision to f32 and back (round to nearest even) over dense arrays.
#pragma once

#include <cstdint>

namespace vila::kernels::VILA_ISA_NS {

static void f16_to_f32(const std::uint16_t* x, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, load_f16(x + i));
  const int rest = static_cast<int>(n - i);
  std::uint16_t tail[16] = {};
  for (int j = 0; j < rest; ++j) tail[j] = x[i + j];
  store_partial(y + i, load_f16(tail), rest);
}

static void f32_to_f16(const float* x, std::uint16_t* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_f16(y + i, load(x + i));
  const int rest = static_cast<int>(n - i);
  std::uint16_t tail[16];
  store_f16(tail, load_partial(x + i, rest));
  for (int j = 0; j < rest; ++j) y[i + j] = tail[j];
}

}  // namespace vila::kernels::VILA_ISA_NS
