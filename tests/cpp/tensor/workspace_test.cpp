#include "tensor/workspace.h"

#include <cstring>

#include <gtest/gtest.h>

#include "tensor/workspace_pool.h"

namespace vila {
namespace {

// A pass with nested frames and sizes that exceed the first block.
void pass(Workspace& workspace) {
  const Workspace::Frame outer(workspace);
  float* a = workspace.allocate<float>(1000);
  std::memset(a, 1, 4000);
  for (int i = 0; i < 5; ++i) {
    const Workspace::Frame inner(workspace);
    auto* b = workspace.allocate<std::uint8_t>(900'000 + i * 100'000);
    std::memset(b, 2, 900'000);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b) % 64, 0U);
  }
  EXPECT_EQ(reinterpret_cast<std::uint8_t*>(a)[3999], 1);  // inner frames did not touch it
}

TEST(Workspace, StopsGrowingOnceWarm) {
  Workspace workspace;
  pass(workspace);
  pass(workspace);
  const std::size_t warm = workspace.capacity_bytes();
  EXPECT_GT(warm, 1'300'000U);
  for (int i = 0; i < 3; ++i) pass(workspace);
  EXPECT_EQ(workspace.capacity_bytes(), warm);
}

TEST(Workspace, FramesGiveMemoryBack) {
  Workspace workspace;
  const Workspace::Frame outer(workspace);
  void* first = nullptr;
  {
    const Workspace::Frame inner(workspace);
    first = workspace.allocate(128);
  }
  EXPECT_EQ(workspace.allocate(128), first);
}

TEST(WorkspacePool, HandsOutWhatCameBackAndNeverTheSameTwice) {
  WorkspacePool pool;
  const Workspace* first = nullptr;
  {
    const WorkspacePool::Lease lease = pool.take();
    first = &*lease;
    pass(*lease);
    const WorkspacePool::Lease other = pool.take();
    EXPECT_NE(&*other, first);
    EXPECT_EQ((*other).capacity_bytes(), 0U);
  }
  const WorkspacePool::Lease a = pool.take();
  const WorkspacePool::Lease b = pool.take();
  EXPECT_TRUE(&*a == first || &*b == first);
  EXPECT_NE(&*a, &*b);
}

}  // namespace
}  // namespace vila
