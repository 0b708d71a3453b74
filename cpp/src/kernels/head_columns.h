// The columns of one head in rows of activations, which lie further apart than hardware looks ahead.
#pragma once

#include <cstdint>

namespace vila::kernels::VILA_ISA_NS {

// Asks for n columns that are needed kRowsAhead rows later.
[[gnu::always_inline]] inline void prefetch_columns(const float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += 16) prefetch(x + i);
  prefetch(x + n - 1);
}
inline constexpr std::int64_t kRowsAhead = 4;

}  // namespace vila::kernels::VILA_ISA_NS
