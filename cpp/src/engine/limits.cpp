// What this machine can do at best, measured: the figures that benchmarks are put beside.
#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/dispatch.h"
#include "tensor/huge_buffer.h"
#include "threading/thread_pool.h"
#include "threading/topology.h"
#include "vila/engine.h"

namespace vila {
namespace {

constexpr std::int64_t kReadFloats = std::int64_t{64} << 20;  // 256 MiB: far beyond the caches
constexpr std::int64_t kSteps = 1 << 21;
constexpr int kRounds = 5;

// Amount per second of the best of several rounds; `round` gives the amount of one.
template <class F>
double best_rate(F&& round) {
  double best = 0;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double amount = round();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, amount / seconds.count());
  }
  return best;
}

}  // namespace

MachineLimits measure_limits(int threads, const std::string& isa) {
  if (threads < 0)
    throw InvalidArgument("[limits] threads: expected 0 (choose) or more, got " + std::to_string(threads));
  const kernels::KernelTable& table = isa.empty() ? kernels::default_kernels() : kernels::kernels_by_name(isa);
  ThreadPool pool(threads > 0 ? threads : usable_cores());
  const std::int64_t n = pool.size();
  const HugeBuffer memory(static_cast<std::size_t>(kReadFloats) * sizeof(float));
  auto* floats = reinterpret_cast<float*>(memory.data());
  const std::int64_t share = kReadFloats / n / 64 * 64;
  std::vector<float> sinks(static_cast<std::size_t>(16 * n));
  pool.parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {  // first touch
    std::fill(floats + begin * share, floats + end * share, 1.0F);
  });
  MachineLimits limits;
  limits.huge_page_bytes = huge_page_bytes();
  limits.read_bytes_per_second = best_rate([&] {
    pool.parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        sinks[static_cast<std::size_t>(16 * i)] = table.probe_read(floats + i * share, share);
    });
    return static_cast<double>(n * share) * sizeof(float);
  });
  const std::vector<std::uint8_t> w(64, 0x21);
  const std::vector<std::int8_t> a(64, 1);
  const std::vector<float> x(16, 1e-3F);
  const auto rate = [&](auto&& probe) {
    return best_rate([&] {
      std::vector<std::int64_t> macs(static_cast<std::size_t>(n));
      pool.parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) macs[static_cast<std::size_t>(i)] = probe(sinks.data() + 16 * i);
      });
      double total = 0;
      for (const std::int64_t count : macs) total += static_cast<double>(count);
      return total;
    });
  };
  limits.dot_macs_per_second = rate([&](float* sink) { return table.probe_dot(kSteps, w.data(), a.data(), sink); });
  limits.fma_macs_per_second = rate([&](float* sink) { return table.probe_fma(kSteps, x.data(), sink); });
  return limits;
}

}  // namespace vila
