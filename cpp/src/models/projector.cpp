#include "models/projector.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace vila {
namespace {

std::int64_t grid_side(std::int64_t features) {
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(features))));
  VILA_CHECK(side * side == features);
  return side;
}

constexpr float kDownsampleNormEps = 1e-5F;  // torch.nn.LayerNorm's default, which the reference uses

}  // namespace

void space_to_depth(Rows features, Rows out) {
  const std::int64_t grid = grid_side(features.rows);
  const std::int64_t blocks = (grid + 1) / 2;
  const auto bytes = static_cast<std::size_t>(features.cols) * sizeof(float);
  VILA_CHECK(out.rows == blocks * blocks && out.cols == 4 * features.cols);
  for (std::int64_t index = 0; index < out.rows; ++index) {
    const std::int64_t block_col = index / blocks;  // column-major: the row varies fastest
    const std::int64_t block_row = index % blocks;
    for (std::int64_t part = 0; part < 4; ++part) {
      const std::int64_t row = 2 * block_row + part / 2;
      const std::int64_t col = 2 * block_col + part % 2;
      float* to = out.row(index) + part * features.cols;
      if (row < grid && col < grid) {
        std::memcpy(to, features.row(row * grid + col), bytes);
      } else {
        std::memset(to, 0, bytes);
      }
    }
  }
}

Projector::Projector(const ProjectorConfig& c, const WeightScope& scope) : config_(c) {
  switch (c.kind) {
    case ProjectorConfig::Kind::identity:
      break;
    case ProjectorConfig::Kind::linear:
      linears_.emplace_back(scope, "layers", c.out_dim, c.in_dim, Bias::yes);
      break;
    case ProjectorConfig::Kind::mlp_gelu:
      for (std::int64_t i = 0; i < c.depth; ++i) {
        linears_.emplace_back(scope, "layers." + std::to_string(2 * i), c.out_dim, i == 0 ? c.in_dim : c.out_dim,
                              Bias::yes);
      }
      break;
    case ProjectorConfig::Kind::mlp_downsample:
      norm_ = LayerNorm(scope, "layers.1", 4 * c.in_dim, kDownsampleNormEps);
      linears_.emplace_back(scope, "layers.2", c.out_dim, 4 * c.in_dim, Bias::yes);
      linears_.emplace_back(scope, "layers.4", c.out_dim, c.out_dim, Bias::yes);
      break;
  }
}

std::int64_t Projector::n_tokens(std::int64_t n_features) const {
  if (config_.kind != ProjectorConfig::Kind::mlp_downsample) return n_features;
  const std::int64_t blocks = (grid_side(n_features) + 1) / 2;
  return blocks * blocks;
}

void Projector::forward(ExecContext& ctx, Rows features, Rows out) const {
  VILA_CHECK(out.rows == n_tokens(features.rows) && out.cols == config_.out_dim);
  const Workspace::Frame frame(ctx.workspace);
  Rows x = features;
  if (config_.kind == ProjectorConfig::Kind::mlp_downsample) {
    x = ctx.workspace.rows(out.rows, 4 * features.cols);
    space_to_depth(features, x);
    norm_(ctx, x, x);
  }
  if (linears_.empty()) {
    for (std::int64_t r = 0; r < out.rows; ++r) {
      std::copy_n(x.row(r), out.cols, out.row(r));
    }
    return;
  }
  for (std::size_t i = 0; i < linears_.size(); ++i) {
    const bool last = i + 1 == linears_.size();
    const Rows y = last ? out : ctx.workspace.rows(out.rows, config_.out_dim);
    linears_[i](ctx, x, y);
    if (!last) ops::unary(ctx, kernels::Unary::gelu_erf, y);
    x = y;
  }
}

}  // namespace vila
