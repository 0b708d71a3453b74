// What every kernel test shares: a fixture that runs for each compiled table (skipped where this CPU cannot run it),
// comparison of bits, and output matrices that notice writes outside of their rows.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/dispatch.h"
#include "kernels/kernel_table.h"

namespace vila::kernels {

class KernelTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  void SetUp() override {
    if (!supported_here(*GetParam())) GTEST_SKIP() << "this CPU cannot run " << GetParam()->name;
  }
  static const KernelTable& table() { return *GetParam(); }
  static const KernelTable& scalar() { return *compiled_kernels().back(); }
};

/// The last part of a test's name: "avx2".
inline std::string table_name(const testing::TestParamInfo<const KernelTable*>& param) { return param.param->name; }

#define VILA_FOR_EVERY_TABLE(Suite) \
  INSTANTIATE_TEST_SUITE_P(Isa, Suite, testing::ValuesIn(compiled_kernels()), table_name)

/// Equal bits, so that -0 differs from 0; names the first difference.
template <class T>
testing::AssertionResult same_bits(std::span<const T> actual, std::span<const T> expected) {
  if (actual.size() != expected.size()) return testing::AssertionFailure() << "sizes differ";
  if (std::memcmp(actual.data(), expected.data(), actual.size_bytes()) == 0) return testing::AssertionSuccess();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::memcmp(&actual[i], &expected[i], sizeof(T)) != 0) {
      return testing::AssertionFailure() << "index " << i << ": expected " << +expected[i] << ", got " << +actual[i];
    }
  }
  return testing::AssertionFailure();
}

template <class T>
testing::AssertionResult same_bits(const std::vector<T>& actual, const std::vector<T>& expected) {
  return same_bits<T>(std::span<const T>(actual), std::span<const T>(expected));
}

/// An output [rows, width] with a row stride and room around it, filled with a NaN that no kernel computes.
class GuardedOutput {
 public:
  GuardedOutput(std::int64_t rows, std::int64_t width, std::int64_t stride)
      : rows_(rows), width_(width), stride_(stride), values_(static_cast<std::size_t>(kRoom + rows * stride + kRoom)) {
    clear();
  }

  void clear() {
    for (float& value : values_) value = std::bit_cast<float>(kMarker);
  }
  float* data() { return values_.data() + kRoom; }
  [[nodiscard]] float at(std::int64_t row, std::int64_t column) const {
    return values_[static_cast<std::size_t>(kRoom + row * stride_ + column)];
  }
  [[nodiscard]] const std::vector<float>& all() const { return values_; }

  /// Every place in the rows was written and none outside of them.
  [[nodiscard]] testing::AssertionResult written_exactly() const {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i) - kRoom;
      const bool inside = at >= 0 && at < rows_ * stride_ && at % stride_ < width_;
      const bool marked = std::bit_cast<std::uint32_t>(values_[i]) == kMarker;
      if (inside && marked)
        return testing::AssertionFailure() << "not written: row " << at / stride_ << ", column " << at % stride_;
      if (!inside && !marked) return testing::AssertionFailure() << "written outside of the rows, at " << at;
    }
    return testing::AssertionSuccess();
  }

 private:
  static constexpr std::int64_t kRoom = 32;
  static constexpr std::uint32_t kMarker = 0x7fc0beef;
  std::int64_t rows_, width_, stride_;
  std::vector<float> values_;
};

/// Cuts 0..n into ranges in several ways: one, single elements backwards, thirds.
inline std::vector<std::vector<Range>> range_splits(std::int64_t n) {
  std::vector<Range> singles;
  for (std::int64_t i = n; i > 0; --i) singles.push_back({i - 1, i});
  std::vector<Range> uneven;
  for (std::int64_t begin = 0, step = 2; begin < n; begin += step, ++step) {
    uneven.push_back({begin, begin + step < n ? begin + step : n});
  }
  return {singles, uneven, {{n / 3, n}, {0, n / 3}}};
}

}  // namespace vila::kernels
