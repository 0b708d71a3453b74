#include "threading/topology.h"

#include <thread>

#include <gtest/gtest.h>

namespace vila {
namespace {

TEST(Topology, ReadsCgroupQuotas) {
  EXPECT_DOUBLE_EQ(parse_cpu_max("150000 100000\n"), 1.5);
  EXPECT_DOUBLE_EQ(parse_cpu_max("400000 100000"), 4.0);
  EXPECT_DOUBLE_EQ(parse_cpu_max("max 100000\n"), 0.0);
  EXPECT_DOUBLE_EQ(parse_cpu_max("-1 100000"), 0.0);
  EXPECT_DOUBLE_EQ(parse_cpu_max(""), 0.0);
}

TEST(Topology, CoresLieBetweenOneAndTheMachines) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace vila
