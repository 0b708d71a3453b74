// Views of numbers in memory: what a file holds (TensorView), what activations are (Rows) and how a weight matrix is
// bound (Weight). Nothing here owns memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "layout/weight_format.h"

namespace vila {

enum class DType : std::uint8_t { f32, f16, bf16, i32, i64, s8, u8 };

[[nodiscard]] constexpr std::int64_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::i64:
      return 8;
    case DType::s8:
    case DType::u8:
      return 1;
  }
  return 0;
}

/// A dense row-major tensor of a file.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;

  [[nodiscard]] std::int64_t elements() const {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return count;
  }
  template <class T>
  [[nodiscard]] const T* as() const {
    return static_cast<const T*>(data);
  }
};

/// Rows of f32 activations [rows, cols]; row r starts at data + r * stride.
struct Rows {
  float* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;

  [[nodiscard]] float* row(std::int64_t r) const { return data + r * stride; }
  /// Rows begin..begin+count.
  [[nodiscard]] Rows slice(std::int64_t begin, std::int64_t count) const { return {row(begin), count, cols, stride}; }
  /// Columns begin..begin+count of every row.
  [[nodiscard]] Rows columns(std::int64_t begin, std::int64_t count) const {
    return {data + begin, rows, count, stride};
  }
  [[nodiscard]] bool dense() const { return stride == cols; }
};

/// A packed weight matrix [n, k], all parts inside the checkpoint's memory (docs/FORMATS.md).
struct Weight {
  WeightFormat format;
  std::int64_t n = 0, k = 0;
  const std::uint8_t* values = nullptr;
  const std::uint16_t* scales = nullptr;   ///< null for floats
  const std::uint8_t* zeros = nullptr;     ///< ZeroKind::u8 only
  const std::uint16_t* offsets = nullptr;  ///< ZeroKind::f16_offset only
};

}  // namespace vila
