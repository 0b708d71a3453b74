// A decode product (one row) of int4 weights written by hand for one instruction set each: what the shared source is
// measured against. Formula, layout and order of sums are those of kernels/matmul_q.h, so the bits are equal, too.
#pragma once

#include <string_view>

#include "kernels/kernel_table.h"

namespace vila::bench {

using Product = void (*)(const kernels::MatmulQArgs&, kernels::Range tiles);

/// The hand-written product for a table's name, or null where there is none or this CPU cannot run it.
/// It takes one row, groups of 128 with integer zero points, and a multiple of four tiles.
Product handwritten_w4(std::string_view isa);

}  // namespace vila::bench
