// Normalisation layers bound by name. RMSNorm: Zhang and Sennrich, arXiv:1910.07467.
#pragma once

#include <string_view>

#include "io/checkpoint.h"
#include "ops/ops.h"

namespace vila {

/// y = x / sqrt(mean(x^2) + eps) * weight, over C columns.
struct RmsNorm {
  const float* weight = nullptr;
  float eps = 0;

  RmsNorm() = default;
  RmsNorm(const WeightScope& scope, std::string_view name, std::int64_t c, float epsilon)
      : weight(scope.sub(name).vector("weight", c)), eps(epsilon) {}
  void operator()(ExecContext& ctx, Rows x, Rows y) const { ops::rms_norm(ctx, x, weight, eps, y); }
};

/// y = (x - mean) / sqrt(variance + eps) * weight + bias, over C columns.
struct LayerNorm {
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;

  LayerNorm() = default;
  LayerNorm(const WeightScope& scope, std::string_view name, std::int64_t c, float epsilon)
      : weight(scope.sub(name).vector("weight", c)), bias(scope.sub(name).vector("bias", c)), eps(epsilon) {}
  void operator()(ExecContext& ctx, Rows x, Rows y) const { ops::layer_norm(ctx, x, weight, bias, eps, y); }
};

}  // namespace vila
