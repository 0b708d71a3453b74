// The other side of arm_instructions.cpp: calls the integer products of llama.cpp, whose sources are not part of this
// project (arm_instructions.py --llama builds it): arm_instructions_llama KERNEL REPETITIONS M N K
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

extern "C" {
using Product = void(int k, float* y, std::size_t y_stride, const void* w, const void* a, int m, int n);
Product ggml_gemv_q4_0_4x4_q8_0, ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x8_q8_0;
Product ggml_gemm_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x8_q8_0;
using Dot = void(int k, float* y, std::size_t y_stride, const void* w, std::size_t w_stride, const void* a,
                 std::size_t a_stride, int rows);
Dot ggml_vec_dot_q4_0_q8_0, ggml_vec_dot_q8_0_q8_0;
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string kernel = argv[1];
  const int repetitions = std::atoi(argv[2]);
  const int m = std::atoi(argv[3]);
  const int n = std::atoi(argv[4]);
  const int k = std::atoi(argv[5]);
  const std::map<std::string, Product*> products = {
      {"gemv_q4_0_4x4", ggml_gemv_q4_0_4x4_q8_0}, {"gemv_q4_0_4x8", ggml_gemv_q4_0_4x8_q8_0},
      {"gemm_q4_0_4x4", ggml_gemm_q4_0_4x4_q8_0}, {"gemm_q4_0_4x8", ggml_gemm_q4_0_4x8_q8_0},
      {"gemm_q8_0_4x4", ggml_gemm_q8_0_4x4_q8_0}, {"gemm_q8_0_4x8", ggml_gemm_q8_0_4x8_q8_0}};
  const std::map<std::string, Dot*> dots = {{"vec_dot_q4_0", ggml_vec_dot_q4_0_q8_0},
                                            {"vec_dot_q8_0", ggml_vec_dot_q8_0_q8_0}};
  // Blocks of 32: an f16 scale and 16 or 32 bytes. Any finite numbers do; the instructions do not depend on them.
  const auto size = [k](int rows, int bytes) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(k / 32 * bytes);
  };
  const std::vector<std::uint8_t> w(size(n, 34), 0x12);
  const std::vector<std::uint8_t> a(size(m + 3, 34), 0x12);
  std::vector<float> y(static_cast<std::size_t>(m + 3) * static_cast<std::size_t>(n));
  const int w_bytes = kernel == "vec_dot_q4_0" ? 18 : 34;
  for (int i = 0; i < repetitions; ++i) {
    if (products.contains(kernel)) {
      products.at(kernel)(k, y.data(), static_cast<std::size_t>(n), w.data(), a.data(), m, n);
    } else {
      Dot* const dot = dots.at(kernel);
      for (int row = 0; row < m; ++row) {
        for (int column = 0; column < n; ++column) {
          dot(k, &y[static_cast<std::size_t>(row * n + column)], 0, &w[size(column, w_bytes)], 0, &a[size(row, 34)], 0,
              1);
        }
      }
    }
  }
  return 0;
}
