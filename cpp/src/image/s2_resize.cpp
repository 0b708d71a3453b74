#include "image/s2_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace vila {
namespace {

constexpr float kA = -0.75F;

float near(float x) { return ((kA + 2) * x - (kA + 3)) * x * x + 1; }         // |x| <= 1
float far(float x) { return ((kA * x - 5 * kA) * x + 8 * kA) * x - 4 * kA; }  // 1 < |x| < 2

struct Tap {
  std::int64_t index[4];  // clamped input positions
  float weight[4];
};

std::vector<Tap> make_taps(std::int64_t in, std::int64_t out) {
  std::vector<Tap> taps(static_cast<std::size_t>(out));
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  for (std::int64_t i = 0; i < out; ++i) {
    const float centre = scale * (static_cast<float>(i) + 0.5F) - 0.5F;
    const float base = std::floor(centre);
    const float t = centre - base;
    Tap& tap = taps[static_cast<std::size_t>(i)];
    tap.weight[0] = far(t + 1);
    tap.weight[1] = near(t);
    tap.weight[2] = near(1 - t);
    tap.weight[3] = far(2 - t);
    for (std::int64_t k = 0; k < 4; ++k) {
      tap.index[k] = std::clamp<std::int64_t>(static_cast<std::int64_t>(base) - 1 + k, 0, in - 1);
    }
  }
  return taps;
}

}  // namespace

void resize_f32_bicubic(const float* planes, std::int64_t in, float* out, std::int64_t size) {
  if (in == size) {
    std::copy_n(planes, 3 * in * in, out);
    return;
  }
  const std::vector<Tap> taps = make_taps(in, size);
  for (std::int64_t channel = 0; channel < 3; ++channel) {
    const float* plane = planes + channel * in * in;
    for (std::int64_t y = 0; y < size; ++y) {
      const Tap& down = taps[static_cast<std::size_t>(y)];
      for (std::int64_t x = 0; x < size; ++x) {
        const Tap& across = taps[static_cast<std::size_t>(x)];
        float value = 0;
        for (int j = 0; j < 4; ++j) {
          const float* row = plane + down.index[j] * in;
          float sum = 0;
          for (int i = 0; i < 4; ++i) sum += row[across.index[i]] * across.weight[i];
          value += sum * down.weight[j];
        }
        out[(channel * size + y) * size + x] = value;
      }
    }
  }
}

void cut_tile(const float* planes, std::int64_t in, std::int64_t row, std::int64_t col, std::int64_t tile, float* out) {
  for (std::int64_t channel = 0; channel < 3; ++channel) {
    for (std::int64_t y = 0; y < tile; ++y, out += tile) {
      std::memcpy(out, planes + (channel * in + row * tile + y) * in + col * tile,
                  static_cast<std::size_t>(tile) * sizeof(float));
    }
  }
}

void area_resize(const float* map, std::int64_t in, std::int64_t in_stride, std::int64_t channels, float* out,
                 std::int64_t size, std::int64_t out_stride) {
  for (std::int64_t y = 0; y < size; ++y) {
    const std::int64_t top = y * in / size;
    const std::int64_t bottom = ((y + 1) * in + size - 1) / size;
    for (std::int64_t x = 0; x < size; ++x) {
      const std::int64_t left = x * in / size;
      const std::int64_t right = ((x + 1) * in + size - 1) / size;
      const auto cells = static_cast<float>((bottom - top) * (right - left));
      float* to = out + (y * size + x) * out_stride;
      std::fill_n(to, channels, 0.0F);
      for (std::int64_t j = top; j < bottom; ++j) {
        for (std::int64_t i = left; i < right; ++i) {
          const float* from = map + (j * in + i) * in_stride;
          for (std::int64_t c = 0; c < channels; ++c) to[c] += from[c];
        }
      }
      for (std::int64_t c = 0; c < channels; ++c) to[c] /= cells;
    }
  }
}

}  // namespace vila
