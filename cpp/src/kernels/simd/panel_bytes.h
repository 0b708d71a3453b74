// Panels of int8 weights as bytes, for instruction sets whose dot product takes bytes as they are; dot_maddubs.h has
// panels of its own.
#pragma once

namespace vila::kernels::VILA_ISA_NS {

struct PanelS8 {
  static constexpr std::int64_t kPanelBytes = 1;
  template <std::int64_t kStride>
  static void unpack(const std::uint8_t* w, std::uint8_t* panel) {
    store_w8(panel, load_w8(w));
  }
  static I32x16 panel_dot(I32x16 sum, W8 w, A4 a) { return dot4_s(sum, w, a); }
};

}  // namespace vila::kernels::VILA_ISA_NS
