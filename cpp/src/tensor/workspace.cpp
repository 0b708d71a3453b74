#include "tensor/workspace.h"

#include <algorithm>

namespace vila {
namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

Workspace::Frame::Frame(Workspace& workspace)
    : workspace_(workspace), block_(workspace.block_), used_(workspace.used_) {
  ++workspace_.depth_;
}

Workspace::Frame::~Frame() {
  workspace_.block_ = block_;
  workspace_.used_ = used_;
  // The outermost frame leaves nothing in use: one block shall take the place of several, so that the next pass fits.
  if (--workspace_.depth_ == 0 && workspace_.blocks_.size() > 1) {
    workspace_.next_block_ = workspace_.capacity_bytes();
    workspace_.blocks_.clear();
    workspace_.block_ = workspace_.used_ = 0;
  }
}

void* Workspace::allocate(std::size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    const std::size_t size = std::max({bytes, next_block_, capacity_bytes()});
    blocks_.push_back({HugeBuffer(size), size});
  }
  void* result = blocks_[block_].data.data() + used_;
  used_ += bytes;
  return result;
}

std::size_t Workspace::capacity_bytes() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

}  // namespace vila
