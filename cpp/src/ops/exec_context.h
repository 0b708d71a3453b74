// What a forward pass runs with: the kernel table, the threads, the arena and the stop flag.
#pragma once

#include <atomic>

#include "kernels/kernel_table.h"
#include "tensor/workspace.h"
#include "threading/thread_pool.h"

namespace vila {

/// Thrown inside a forward pass when its stop flag is raised; the engine turns it into FinishReason::cancelled.
struct Cancelled {};

struct ExecContext {
  const kernels::KernelTable& kernels;
  ThreadPool& pool;
  Workspace& workspace;
  const std::atomic<bool>* stop = nullptr;

  /// Called by models between layers.
  void check_stop() const {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Cancelled{};
  }
};

}  // namespace vila
