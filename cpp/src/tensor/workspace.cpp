#include "tensor/workspace.h"

#include <algorithm>
#include <new>

namespace vila {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kFirstBlock = std::size_t{1} << 20;

}  // namespace

void Workspace::Free::operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{kAlignment}); }

Workspace::Frame::Frame(Workspace& workspace)
    : workspace_(workspace), block_(workspace.block_), used_(workspace.used_) {
  ++workspace_.depth_;
}

Workspace::Frame::~Frame() {
  workspace_.block_ = block_;
  workspace_.used_ = used_;
  // The outermost frame leaves nothing in use: several blocks become one, so that the next pass fits without growing.
  if (--workspace_.depth_ == 0 && workspace_.blocks_.size() > 1) {
    std::size_t total = workspace_.capacity_bytes();
    workspace_.blocks_.clear();
    workspace_.block_ = workspace_.used_ = 0;
    auto* data = static_cast<std::byte*>(::operator new (total, std::align_val_t{kAlignment}, std::nothrow));
    if (data != nullptr) workspace_.blocks_.push_back({std::unique_ptr<std::byte, Free>(data), total});
  }
}

void* Workspace::allocate(std::size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    const std::size_t size = std::max({bytes, kFirstBlock, capacity_bytes()});
    auto* data = static_cast<std::byte*>(::operator new (size, std::align_val_t{kAlignment}));
    blocks_.push_back({std::unique_ptr<std::byte, Free>(data), size});
  }
  void* result = blocks_[block_].data.get() + used_;
  used_ += bytes;
  return result;
}

std::size_t Workspace::capacity_bytes() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

}  // namespace vila
