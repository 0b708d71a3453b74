// Workspaces that outlive a request: pages of a new one are cleared by the system when they are first touched, which
// takes longer than a short request may.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tensor/workspace.h"

namespace vila {

/// Thread-safe. Holds as many workspaces as were ever in use at the same time.
class WorkspacePool {
 public:
  /// A workspace for one thread at a time; goes back to the pool, which must live longer.
  class Lease {
   public:
    Lease(WorkspacePool& pool, std::unique_ptr<Workspace> workspace) : pool_(pool), workspace_(std::move(workspace)) {}
    ~Lease() { pool_.give_back(std::move(workspace_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    [[nodiscard]] Workspace& operator*() const { return *workspace_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace> workspace_;
  };

  [[nodiscard]] Lease take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) {
      idle_.reserve(++made_);  // so that giving back never allocates
      return {*this, std::make_unique<Workspace>()};
    }
    std::unique_ptr<Workspace> workspace = std::move(idle_.back());
    idle_.pop_back();
    return {*this, std::move(workspace)};
  }

 private:
  void give_back(std::unique_ptr<Workspace> workspace) noexcept {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(workspace));
  }

  std::mutex mutex_;
  std::size_t made_ = 0;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace vila
