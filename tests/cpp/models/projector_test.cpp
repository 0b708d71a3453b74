#include "models/projector.h"

#include <vector>

#include <gtest/gtest.h>

namespace vila {
namespace {

// Each feature holds its own grid coordinates, so the expected rows can be read off.
void check(std::int64_t grid) {
  std::vector<float> features;
  for (std::int64_t i = 0; i < grid * grid; ++i) {
    features.push_back(static_cast<float>(i / grid + 1));
    features.push_back(static_cast<float>(i % grid + 1));
  }
  const std::int64_t blocks = (grid + 1) / 2;
  std::vector<float> out(static_cast<std::size_t>(blocks * blocks * 8), -1.0F);
  space_to_depth({features.data(), grid * grid, 2, 2}, {out.data(), blocks * blocks, 8, 8});
  for (std::int64_t col = 0; col < blocks; ++col) {
    for (std::int64_t row = 0; row < blocks; ++row) {
      const float* token = out.data() + (col * blocks + row) * 8;  // column-major order of blocks
      for (std::int64_t part = 0; part < 4; ++part) {
        const std::int64_t y = 2 * row + part / 2;
        const std::int64_t x = 2 * col + part % 2;
        const bool inside = y < grid && x < grid;
        EXPECT_EQ(token[2 * part], inside ? static_cast<float>(y + 1) : 0.0F);
        EXPECT_EQ(token[2 * part + 1], inside ? static_cast<float>(x + 1) : 0.0F);
      }
    }
  }
}

TEST(SpaceToDepth, EvenGrid) { check(6); }
TEST(SpaceToDepth, OddGridGetsZerosAtItsEnd) { check(7); }

}  // namespace
}  // namespace vila
