// A linear layer: a packed matrix and an optional bias, bound by name.
#pragma once

#include <string_view>

#include "io/checkpoint.h"
#include "ops/ops.h"

namespace vila {

enum class Bias : std::uint8_t { no, yes };

/// y [T, N] = x [T, K] W^T + bias. Names: `<name>.weight`, `<name>.bias`.
struct Linear {
  Weight weight;
  const float* bias = nullptr;

  Linear() = default;
  Linear(const WeightScope& scope, std::string_view name, std::int64_t n, std::int64_t k, Bias with_bias)
      : weight(scope.matrix(name, n, k)), bias(with_bias == Bias::yes ? scope.sub(name).vector("bias", n) : nullptr) {}

  void operator()(ExecContext& ctx, Rows x, Rows y) const { ops::linear(ctx, x, weight, bias, y); }
  [[nodiscard]] ops::LinearJob job(Rows y) const { return {&weight, bias, y}; }
};

}  // namespace vila
