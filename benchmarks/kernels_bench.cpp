// Rates of the kernels on one thread, per instruction set: bytes of weights per second for one row,
// multiply-accumulates per second for many and for the attention of a picture, and bytes of keys and values per second
// for the attention of one row.
// "handwritten" rows are what the shared source is compared with.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include "handwritten_w4.h"
#include "kernels/dispatch.h"
#include "layout/weight_format.h"

namespace vila::bench {
namespace {

using kernels::KernelTable;
using kernels::MatmulFArgs;
using kernels::MatmulQArgs;
using kernels::Range;

constexpr std::int64_t kDecodeN = 16 * 1024, kDecodeK = 8192;  // 64 MiB of int4: beyond the last cache level
constexpr std::int64_t kPrefillN = 2560, kPrefillK = 2560;

// Memory in huge pages, as the engine keeps weights; filled with bytes that are no pattern.
class Pages {
 public:
  explicit Pages(std::int64_t bytes) : bytes_(static_cast<std::size_t>(round_up(bytes, kHuge) + kHuge)) {
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) {
      std::cerr << "kernels_bench: no memory for " << bytes << " bytes\n";
      std::exit(1);
    }
    const auto address = reinterpret_cast<std::uintptr_t>(memory_);
    data_ = reinterpret_cast<std::uint8_t*>(address + (kHuge - address % kHuge) % kHuge);
#ifdef MADV_HUGEPAGE
    ::madvise(data_, static_cast<std::size_t>(round_up(bytes, kHuge)), MADV_HUGEPAGE);
#endif
    std::uint32_t state = 1;
    for (std::int64_t i = 0; i < bytes; ++i)
      data_[i] = static_cast<std::uint8_t>((state = state * 1664525U + 1013904223U) >> 24);
  }
  ~Pages() { ::munmap(memory_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  [[nodiscard]] std::uint8_t* data() const { return data_; }

 private:
  static constexpr std::int64_t kHuge = std::int64_t{2} << 20;
  std::size_t bytes_;
  void* memory_ = nullptr;
  std::uint8_t* data_ = nullptr;
};

struct QuantisedProduct {
  QuantisedProduct(bool int4, std::int64_t m, std::int64_t n, std::int64_t k)
      : weights(n * k / (int4 ? 2 : 1)),
        a(static_cast<std::size_t>(m * k), 3),
        zeros(static_cast<std::size_t>(n * k / 128), 7),
        a_sum(static_cast<std::size_t>(m * k / 32), 96),
        w_scale(static_cast<std::size_t>(n * k / 128), 0x2000),
        a_scale(a_sum.size(), 0.01F),
        a_weighted(static_cast<std::size_t>(m * k / 128), 3.84F),
        y(static_cast<std::size_t>(m * n)) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::int8_t>(static_cast<int>(i * 37 % 255) - 127);
    args.a = a.data();
    args.a_scale = a_scale.data();
    args.a_sum = a_sum.data();
    args.a_weighted = a_weighted.data();
    args.w = weights.data();
    args.w_scale = w_scale.data();
    args.w_zero = int4 ? zeros.data() : nullptr;
    args.y = y.data();
    args.m = m;
    args.n = n;
    args.k_padded = k;
    args.group = 128;
    args.a_group = kernels::kActivationGroup;
    args.y_stride = n;
  }
  Pages weights;
  std::vector<std::int8_t> a;
  std::vector<std::uint8_t> zeros;
  std::vector<std::int32_t> a_sum;
  std::vector<std::uint16_t> w_scale;
  std::vector<float> a_scale, a_weighted, y;
  MatmulQArgs args{};
};

void run_quantised(benchmark::State& state, Product product, bool int4, std::int64_t m, std::int64_t n,
                   std::int64_t k) {
  const QuantisedProduct operands(int4, m, n, k);
  for (auto _ : state) {
    product(operands.args, Range{0, n / kTileRows});
    benchmark::ClobberMemory();
  }
  const auto macs = static_cast<double>(m * n * k);
  if (m == 1) {
    // Values, f16 scales and, for int4, zero points.
    const double bytes = static_cast<double>(n * k) * ((int4 ? 0.5 : 1.0) + (int4 ? 3.0 : 2.0) / 128);
    state.counters["bytes/s"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
  }
  state.counters["mac/s"] = benchmark::Counter(macs, benchmark::Counter::kIsIterationInvariantRate);
}

void run_float(benchmark::State& state, const KernelTable& table, bool half) {
  constexpr std::int64_t kRows = 256;
  const Pages weights(kPrefillN * kPrefillK * (half ? 2 : 4));
  std::memset(weights.data(), 0x30, static_cast<std::size_t>(kPrefillN * kPrefillK * (half ? 2 : 4)));
  const std::vector<float> a(static_cast<std::size_t>(kRows * kPrefillK), 0.5F);
  std::vector<float> y(static_cast<std::size_t>(kRows * kPrefillN));
  const MatmulFArgs args{a.data(), kPrefillK, weights.data(), nullptr,  y.data(),
                         kRows,    kPrefillN, kPrefillK,      kPrefillN};
  for (auto _ : state) {
    (half ? table.matmul_f16 : table.matmul_f32)(args, Range{0, kPrefillN / kTileRows});
    benchmark::ClobberMemory();
  }
  state.counters["mac/s"] = benchmark::Counter(static_cast<double>(kRows * kPrefillN * kPrefillK),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

// Attention of one row of `heads` heads of 128 columns over `positions` cached ones: all keys and values are read once,
// from the caches of the CPU (few heads) or from memory (many).
void run_attention(benchmark::State& state, const KernelTable& table, kernels::KvType type, std::int64_t heads,
                   std::int64_t positions) {
  kernels::KvLayout cache;
  cache.n_kv_heads = heads;
  cache.head_dim = 128;
  cache.capacity = positions;
  cache.type = type;
  cache.block_stride = cache.block_bytes();
  const std::int64_t bytes = positions / kernels::kAttentionBlock * cache.block_stride;
  const Pages tiles(bytes);
  std::memset(tiles.data(), 0x30, static_cast<std::size_t>(bytes));
  cache.data = tiles.data();
  const std::int64_t width = heads * cache.head_dim;
  const std::vector<float> q(static_cast<std::size_t>(width), 0.5F);
  std::vector<float> out(q.size());
  const kernels::AttentionArgs args{q.data(),      out.data(), width, width, 1,   heads,
                                    positions - 1, positions,  cache, 0.1F,  true};
  for (auto _ : state) {
    for (std::int64_t head = 0; head < heads; ++head) table.attention(args, head, Range{0, 1});
    benchmark::ClobberMemory();
  }
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
}

// Attention among the patches of a picture: 48 queries of one head of 72 columns, 729 positions, all seen.
void run_patches(benchmark::State& state, const KernelTable& table, kernels::KvType type) {
  constexpr std::int64_t kQueries = 48;
  constexpr std::int64_t kPatches = 729;
  constexpr std::int64_t kColumns = 72;
  kernels::KvLayout cache;
  cache.n_kv_heads = 1;
  cache.head_dim = kColumns;
  cache.capacity = round_up(kPatches, kernels::kAttentionBlock);
  cache.type = type;
  cache.block_stride = cache.block_bytes();
  const Pages tiles(cache.capacity / kernels::kAttentionBlock * cache.block_stride);
  cache.data = tiles.data();
  std::vector<float> rows(static_cast<std::size_t>(kPatches * kColumns));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * 7919 % 1009) / 1009 - 0.5F;
  table.kv_append({rows.data(), rows.data(), kColumns, kColumns, 0, cache}, Range{0, kPatches});
  std::vector<float> out(static_cast<std::size_t>(kQueries * kColumns));
  const kernels::AttentionArgs args{rows.data(), out.data(), kColumns, kColumns, kQueries, 1,
                                    0,           kPatches,   cache,    0.12F,    false};
  for (auto _ : state) {
    table.attention(args, 0, Range{0, kQueries});
    benchmark::ClobberMemory();
  }
  state.counters["mac/s"] = benchmark::Counter(static_cast<double>(2 * kQueries * kPatches * kColumns),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

// The limits that the rates of this instruction set are to be compared with.
void run_probe(benchmark::State& state, const KernelTable& table, bool dot) {
  constexpr std::int64_t kSteps = 1 << 20;
  const std::vector<std::uint8_t> w(64, 0x21);
  const std::vector<std::int8_t> a(64, 1);
  const std::vector<float> x(16, 1e-3F);
  std::vector<float> sink(16);
  std::int64_t macs = 0;
  for (auto _ : state) {
    macs =
        dot ? table.probe_dot(kSteps, w.data(), a.data(), sink.data()) : table.probe_fma(kSteps, x.data(), sink.data());
    benchmark::ClobberMemory();
  }
  state.counters["mac/s"] =
      benchmark::Counter(static_cast<double>(macs), benchmark::Counter::kIsIterationInvariantRate);
}

void add_table(const KernelTable& table) {
  const std::string isa = table.name;
  for (const bool dot : {true, false}) {
    benchmark::RegisterBenchmark((std::string(dot ? "limit/dot/" : "limit/fma/") + isa).c_str(),
                                 [&table, dot](benchmark::State& state) { run_probe(state, table, dot); })
        ->Unit(benchmark::kMillisecond);
  }
  for (const kernels::KvType type : {kernels::KvType::f16, kernels::KvType::int8}) {
    const std::string name = std::string("attention/") + (type == kernels::KvType::f16 ? "f16" : "int8") + "/m1/";
    benchmark::RegisterBenchmark((name + "cached/" + isa).c_str(), [&table, type](benchmark::State& state) {
      run_attention(state, table, type, 1, 256);
    })->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark((name + "memory/" + isa).c_str(), [&table, type](benchmark::State& state) {
      run_attention(state, table, type, 256, 2048);
    })->Unit(benchmark::kMicrosecond);
  }
  for (const kernels::KvType type : {kernels::KvType::f32, kernels::KvType::int16}) {
    const std::string name = std::string("attention/") + (type == kernels::KvType::f32 ? "f32" : "int16") + "/patches/";
    benchmark::RegisterBenchmark((name + isa).c_str(), [&table, type](benchmark::State& state) {
      run_patches(state, table, type);
    })->Unit(benchmark::kMicrosecond);
  }
  const auto quantised = [](const std::string& name, Product product, bool int4, std::int64_t m) {
    const bool decode = m < 4;
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      run_quantised(state, product, int4, m, decode ? kDecodeN : kPrefillN, decode ? kDecodeK : kPrefillK);
    })->Unit(benchmark::kMillisecond);
  };
  quantised("w4/m1/" + isa, table.matmul_w4, true, 1);
  if (const Product product = handwritten_w4(isa)) quantised("w4/m1/" + isa + "/handwritten", product, true, 1);
  quantised("w8/m1/" + isa, table.matmul_w8, false, 1);
  quantised("w4/m256/" + isa, table.matmul_w4, true, 256);
  quantised("w8/m256/" + isa, table.matmul_w8, false, 256);
  for (const bool half : {false, true}) {
    benchmark::RegisterBenchmark((std::string(half ? "f16" : "f32") + "/m256/" + isa).c_str(),
                                 [&table, half](benchmark::State& state) { run_float(state, table, half); })
        ->Unit(benchmark::kMillisecond);
  }
}

// The two sources of the decode product must agree before their speeds are worth comparing.
bool handwritten_agrees() {
  bool good = true;
  for (const KernelTable* table : kernels::compiled_kernels()) {
    const Product product = handwritten_w4(table->name);
    if (product == nullptr || !kernels::supported_here(*table)) continue;
    QuantisedProduct operands(true, 1, 128, 512);
    table->matmul_w4(operands.args, Range{0, 8});
    const std::vector<float> shared = operands.y;
    product(operands.args, Range{0, 8});
    if (std::memcmp(shared.data(), operands.y.data(), shared.size() * sizeof(float)) != 0) {
      std::cerr << "kernels_bench: " << table->name << ": expected equal bits from both sources, got different ones\n";
      good = false;
    }
  }
  return good;
}

}  // namespace
}  // namespace vila::bench

int main(int argc, char** argv) {
  if (!vila::bench::handwritten_agrees()) return 1;
  for (const vila::kernels::KernelTable* table : vila::kernels::compiled_kernels()) {
    if (vila::kernels::supported_here(*table) && std::string_view(table->name) != "scalar")
      vila::bench::add_table(*table);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
