// Bicubic resize of 8-bit RGB, bit for bit as Pillow 10.4 does it.
#pragma once

#include "vila/image.h"

namespace vila {

/// Catmull-Rom-like bicubic (a = -0.5) with antialiasing: the horizontal pass first, weights in 22-bit fixed point,
/// 8-bit values between the passes. Throws InvalidArgument for sizes below 1.
Image resize_bicubic(ImageView source, std::int32_t width, std::int32_t height);

}  // namespace vila
