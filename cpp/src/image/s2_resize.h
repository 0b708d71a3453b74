// The geometry of S2 (Shi et al., "When Do We Not Need Larger Vision Models?", arXiv:2403.13043): scales of normalised
// pixels, tiles, and their features put together again.
#pragma once

#include <cstdint>

namespace vila {

/// planes [3, in, in] -> out [3, size, size]: bicubic with a = -0.75, half-pixel centres, clamped borders and no
/// antialiasing, as torch.nn.functional.interpolate computes it in f32. The same size is a copy.
void resize_f32_bicubic(const float* planes, std::int64_t in, float* out, std::int64_t size);

/// Tile (row, col) of planes [3, in, in] -> out [3, tile, tile].
void cut_tile(const float* planes, std::int64_t in, std::int64_t row, std::int64_t col, std::int64_t tile, float* out);

/// Means over the cells of an adaptive grid, as interpolate(mode="area") takes them: map [in, in, channels] with
/// `in_stride` floats between neighbours -> out [size, size, channels] with `out_stride`. The same size is a copy.
void area_resize(const float* map, std::int64_t in, std::int64_t in_stride, std::int64_t channels, float* out,
                 std::int64_t size, std::int64_t out_stride);

}  // namespace vila
