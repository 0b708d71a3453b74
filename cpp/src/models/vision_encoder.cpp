#include "models/vision_encoder.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "image/s2_resize.h"

namespace vila {
namespace {

ImageSpec spec_of(const ImageConfig& config) {
  ImageSpec spec;
  spec.size = static_cast<std::int32_t>(config.size);
  spec.mode = config.pad ? ImageSpec::Mode::pad : ImageSpec::Mode::resize;
  spec.rescale = config.rescale;
  spec.mean = config.mean;
  spec.std = config.std;
  return spec;
}

std::variant<SiglipTower, InternVitTower> make_tower(const VisionConfig& config, const WeightScope& scope) {
  if (config.kind == VisionConfig::Kind::siglip) return SiglipTower(config, scope);
  return InternVitTower(config, scope);
}

}  // namespace

VisionEncoder::VisionEncoder(const ModelConfig& config, const WeightScope& root)
    : config_(config),
      processor_(spec_of(config.image)),
      tower_(make_tower(config.vision, root.sub("vision"))),
      projector_(config.projector, root.sub("projector")) {}

std::vector<float> VisionEncoder::preprocess(ImageView image) const {
  std::vector<float> pixels(static_cast<std::size_t>(3 * image_size() * image_size()));
  processor_.run(image, pixels);
  return pixels;
}

void VisionEncoder::tower(ExecContext& ctx, const float* pixels, Rows features) const {
  std::visit([&](const auto& tower) { tower.forward(ctx, pixels, features); }, tower_);
}

// Per scale: resize, cut into tiles, run the tower on each, lay the tiles' grids side by side, shrink that map to the
// first scale's grid; the scales' channels stand behind each other.
void VisionEncoder::multi_scale(ExecContext& ctx, std::span<const float> pixels, Rows features) const {
  const VisionConfig& vision = config_.vision;
  const std::int64_t tile = config_.s2->max_split;
  const std::int64_t grid = vision.grid();
  VILA_CHECK(features.rows == grid * grid);
  std::int64_t first_channel = 0;
  for (const std::int64_t scale : config_.s2->scales) {
    const Workspace::Frame frame(ctx.workspace);
    auto* scaled = ctx.workspace.allocate<float>(3 * scale * scale);
    resize_f32_bicubic(pixels.data(), image_size(), scaled, scale);
    const std::int64_t splits = scale / tile;
    const std::int64_t side = splits * grid;
    const Rows map = ctx.workspace.rows(side * side, vision.dim);
    auto* input = ctx.workspace.allocate<float>(3 * tile * tile);
    const Rows tile_features = ctx.workspace.rows(grid * grid, vision.dim);
    for (std::int64_t i = 0; i < splits * splits; ++i) {
      cut_tile(scaled, scale, i / splits, i % splits, tile, input);
      tower(ctx, input, tile_features);
      for (std::int64_t row = 0; row < grid; ++row) {
        const std::int64_t to = (i / splits * grid + row) * side + i % splits * grid;
        std::copy_n(tile_features.row(row * grid), grid * vision.dim, map.row(to));
      }
    }
    area_resize(map.data, side, vision.dim, vision.dim, features.data + first_channel, grid, features.stride);
    first_channel += vision.dim;
  }
}

void VisionEncoder::features(ExecContext& ctx, std::span<const float> pixels, Rows features) const {
  VILA_CHECK(static_cast<std::int64_t>(pixels.size()) == 3 * image_size() * image_size());
  VILA_CHECK(features.rows == n_features() && features.cols == feature_dim());
  if (config_.s2) {
    multi_scale(ctx, pixels, features);
  } else {
    tower(ctx, pixels.data(), features);
  }
}

void VisionEncoder::encode(ExecContext& ctx, std::span<const float> pixels, Rows out) const {
  const Workspace::Frame frame(ctx.workspace);
  const Rows seen = ctx.workspace.rows(n_features(), feature_dim());
  features(ctx, pixels, seen);
  projector_.forward(ctx, seen, out);
}

}  // namespace vila
