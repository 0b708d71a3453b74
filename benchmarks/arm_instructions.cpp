// Runs one integer product a number of times and nothing else, so that the instructions of the difference between two
// runs can be counted under an emulator (arm_instructions.py): arm_instructions TABLE w4|w8 REPETITIONS M N K
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/dispatch.h"

int main(int argc, char** argv) {
  using namespace vila::kernels;
  if (argc != 7) return 2;
  const KernelTable& table = kernels_by_name(argv[1]);
  const bool int4 = std::strcmp(argv[2], "w4") == 0;
  const int repetitions = std::atoi(argv[3]);
  const std::int64_t m = std::atol(argv[4]);
  const std::int64_t n = std::atol(argv[5]);
  const std::int64_t k = std::atol(argv[6]);
  const std::int64_t group = 128;
  if (m < 1 || n % 16 != 0 || k % group != 0) return 2;
  const std::vector<std::int8_t> a(static_cast<std::size_t>(m * k), 3);
  const std::vector<float> a_scale(static_cast<std::size_t>(m * k / kActivationGroup), 0.5F);
  const std::vector<float> a_weighted(static_cast<std::size_t>(m * k / group), 2.0F);
  const std::vector<std::int32_t> a_sum(a_scale.size(), 96);
  const std::vector<std::uint8_t> w(static_cast<std::size_t>(n * k / (int4 ? 2 : 1)), 0x57);
  const std::vector<std::uint16_t> w_scale(static_cast<std::size_t>(n * k / group), 0x3c00);
  const std::vector<std::uint8_t> w_zero(w_scale.size(), 8);
  std::vector<float> y(static_cast<std::size_t>(m * n));
  MatmulQArgs args{};
  args.a = a.data();
  args.a_scale = a_scale.data();
  args.a_sum = a_sum.data();
  args.a_weighted = a_weighted.data();
  args.w = w.data();
  args.w_scale = w_scale.data();
  args.w_zero = int4 ? w_zero.data() : nullptr;
  args.y = y.data();
  args.m = m;
  args.n = n;
  args.k_padded = k;
  args.group = group;
  args.a_group = kActivationGroup;
  args.y_stride = n;
  for (int i = 0; i < repetitions; ++i) (int4 ? table.matmul_w4 : table.matmul_w8)(args, {0, n / 16});
  return y.back() > 0 ? 0 : 1;
}
