// Sums of rows: the residual connection, with and without a learned scale per column. Nothing here mixes lanes.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace vila::kernels::VILA_ISA_NS {

// out = x + y over n values; out may be x or y.
static void add_rows(const float* x, const float* y, float* out, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, add(load(x + i), load(y + i)));
  const int rest = static_cast<int>(n - i);
  store_partial(out + i, add(load_partial(x + i, rest), load_partial(y + i, rest)), rest);
}

// out[m, j] = x[m, j] + scale[j] * y[m, j], one fma; dense rows of c columns; out may be x or y.
static void scale_add(const float* x, const float* y, const float* scale, float* out, Range rows, std::int64_t c) {
  for (std::int64_t m = rows.begin; m < rows.end; ++m) {
    const std::int64_t row = m * c;
    std::int64_t i = 0;
    for (; i + 16 <= c; i += 16) {
      store(out + row + i, fma(load(scale + i), load(y + row + i), load(x + row + i)));
    }
    const int rest = static_cast<int>(c - i);
    const F32x16 tail =
        fma(load_partial(scale + i, rest), load_partial(y + row + i, rest), load_partial(x + row + i, rest));
    store_partial(out + row + i, tail, rest);
  }
}

}  // namespace vila::kernels::VILA_ISA_NS
