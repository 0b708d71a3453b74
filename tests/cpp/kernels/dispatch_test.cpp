// The choice of a kernel table: order, names, errors that name the usable tables, and the flags that Linux reports.
#include "kernels/dispatch.h"

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu_features.h"
#include "support/expect_error.h"
#include "vila/error.h"

namespace vila::kernels {
namespace {

using testing_support::expect_error;

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const KernelTable* table : compiled_kernels()) all.emplace_back(table->name);
  return all;
}

TEST(Dispatch, ListsTheTablesBestFirst) {
#if defined(__x86_64__)
  EXPECT_EQ(names(), (std::vector<std::string>{"avx512vnni", "avx512", "avxvnni", "avx2", "scalar"}));
#elif defined(__aarch64__)
  EXPECT_EQ(names(), (std::vector<std::string>{"neon_i8mm", "neon_dotprod", "neon", "scalar"}));
#else
  EXPECT_EQ(names(), (std::vector<std::string>{"scalar"}));
#endif
  EXPECT_TRUE(supported_here(*compiled_kernels().back()));
}

TEST(Dispatch, TablesAreComplete) {
  for (const KernelTable* t : compiled_kernels()) {
    const bool complete = t->quantize_s8 && t->matmul_w4 && t->matmul_w8 && t->matmul_f32 && t->matmul_f16 &&
                          t->rms_norm && t->layer_norm && t->rope && t->kv_append && t->attention && t->silu_mul &&
                          t->unary && t->add && t->scale_add && t->f16_to_f32 && t->f32_to_f16;
    EXPECT_TRUE(complete) << t->name;
  }
}

TEST(Dispatch, FindsEveryUsableTableByItsName) {
  for (const KernelTable* table : compiled_kernels()) {
    if (supported_here(*table)) {
      EXPECT_EQ(&kernels_by_name(table->name), table);
    } else {
      expect_error<UnsupportedError>([&] { kernels_by_name(table->name); }, {table->name, "cannot run", "scalar"});
    }
  }
}

TEST(Dispatch, RefusesUnknownNamesAndNamesTheUsableOnes) {
  for (const char* name : {"", "AVX2", "avx", "avx512vnni ", "sse9"}) {
    expect_error<UnsupportedError>([&] { kernels_by_name(name); },
                                   {"[isa]", "expected one of", "scalar", std::string("\"") + name + "\""});
  }
}

TEST(Dispatch, AnIsaNeedsItsOwnFlagOnly) {
  EXPECT_TRUE(can_run(Isa::scalar, {}));
  for (const Isa isa :
       {Isa::avx2, Isa::avxvnni, Isa::avx512, Isa::avx512vnni, Isa::neon, Isa::neon_dotprod, Isa::neon_i8mm}) {
    EXPECT_FALSE(can_run(isa, {}));
  }
  CpuFeatures haswell;
  haswell.avx2_fma_f16c = true;
  EXPECT_TRUE(can_run(Isa::avx2, haswell));
  EXPECT_FALSE(can_run(Isa::avxvnni, haswell));
  EXPECT_FALSE(can_run(Isa::avx512, haswell));
  CpuFeatures skylake = haswell;
  skylake.avx512_f_bw_vl_dq = true;
  EXPECT_TRUE(can_run(Isa::avx512, skylake));
  EXPECT_FALSE(can_run(Isa::avx512vnni, skylake));
  CpuFeatures pi;
  pi.neon = true;
  EXPECT_TRUE(can_run(Isa::neon, pi));
  EXPECT_FALSE(can_run(Isa::neon_dotprod, pi));
  pi.neon_dotprod = true;  // the fifth
  EXPECT_TRUE(can_run(Isa::neon_dotprod, pi));
  EXPECT_FALSE(can_run(Isa::neon_i8mm, pi));
}

#if defined(__linux__) && defined(__x86_64__)
TEST(Dispatch, AgreesWithTheFlagsThatTheKernelReports) {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line) && flags.empty();) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) flags.insert(word);
  }
  if (flags.empty()) GTEST_SKIP() << "no flags in /proc/cpuinfo";
  const auto all = [&](std::initializer_list<const char*> wanted) {
    for (const char* flag : wanted) {
      if (!flags.contains(flag)) return false;
    }
    return true;
  };
  const bool avx2 = all({"avx2", "fma", "f16c"});
  const bool avx512 = avx2 && all({"avx512f", "avx512bw", "avx512vl", "avx512dq"});
  EXPECT_EQ(cpu_features().avx2_fma_f16c, avx2);
  EXPECT_EQ(cpu_features().avx_vnni, avx2 && all({"avx_vnni"}));
  EXPECT_EQ(cpu_features().avx512_f_bw_vl_dq, avx512);
  EXPECT_EQ(cpu_features().avx512_vnni, avx512 && all({"avx512_vnni"}));
}
#endif

// default_kernels() remembers its choice for the process, so each case is a process of its own. It is a plain fork: no
// thread runs here, and an emulated program cannot be executed anew.
class DispatchDeathTest : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "fast"; }

  // Exit code 0: the choice has this name; 1: another one; 2: UnsupportedError, whose message is printed.
  static void choose(const char* forced, const std::string& expected) {
    if (forced != nullptr) {
      setenv("VILA_ISA", forced, 1);
    } else {
      unsetenv("VILA_ISA");
    }
    try {
      std::_Exit(default_kernels().name == expected ? 0 : 1);
    } catch (const UnsupportedError& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::_Exit(2);
    }
  }
};

TEST_F(DispatchDeathTest, TakesTheBestUsableTable) {
  std::string best;
  for (const KernelTable* table : compiled_kernels()) {
    if (best.empty() && supported_here(*table)) best = table->name;
  }
  EXPECT_EXIT(choose(nullptr, best), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(choose("", best), testing::ExitedWithCode(0), "");
}

TEST_F(DispatchDeathTest, ObeysTheEnvironment) {
  for (const KernelTable* table : compiled_kernels()) {
    if (supported_here(*table)) {
      EXPECT_EXIT(choose(table->name, table->name), testing::ExitedWithCode(0), "");
    }
  }
}

TEST_F(DispatchDeathTest, RefusesAWrongEnvironment) {
  EXPECT_EXIT(choose("pentium", ""), testing::ExitedWithCode(2),
              "expected one of .*scalar.*pentium.*not in this build");
}

TEST_F(DispatchDeathTest, RemembersNothingOfAWrongEnvironment) {
  const auto twice = [] {
    setenv("VILA_ISA", "pentium", 1);
    try {
      default_kernels();
      std::_Exit(1);
    } catch (const UnsupportedError&) {
      choose("scalar", "scalar");
    }
  };
  EXPECT_EXIT(twice(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace vila::kernels
