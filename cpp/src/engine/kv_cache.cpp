#include "engine/kv_cache.h"

#include <cstring>
#include <string>
#include <utility>

#include <sys/mman.h>

#include "base/check.h"

namespace vila {

using kernels::kAttentionBlock;

namespace {

// Of every layer, but for the place.
kernels::KvLayout layout_of(const LlamaConfig& config, kernels::KvType type) {
  kernels::KvLayout layout;
  layout.n_kv_heads = config.n_kv_heads;
  layout.head_dim = config.head_dim;
  layout.type = type;
  layout.block_stride = config.n_layers * layout.block_bytes();
  return layout;
}

}  // namespace

KvCache::KvCache(const LlamaConfig& config, std::int64_t capacity, kernels::KvType type) {
  kernels::KvLayout layout = layout_of(config, type);
  layout.capacity = round_up(capacity, kAttentionBlock);
  memory_bytes_ = static_cast<std::size_t>(layout.capacity / kAttentionBlock * layout.block_stride);
  void* memory =
      ::mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw CapacityError(
        "[session] no address space for the KV cache: expected " + std::to_string(memory_bytes_) + " bytes",
        static_cast<std::int64_t>(memory_bytes_), 0);
  }
  memory_ = static_cast<std::byte*>(memory);
  for (std::int64_t i = 0; i < config.n_layers; ++i) {
    layout.data = memory_ + i * layout.block_bytes();
    layers_.push_back(layout);
  }
}

KvCache::KvCache(KvCache&& other) noexcept
    : layers_(std::move(other.layers_)),
      memory_(std::exchange(other.memory_, nullptr)),
      memory_bytes_(other.memory_bytes_) {}

KvCache& KvCache::operator=(KvCache&& other) noexcept {
  std::swap(layers_, other.layers_);
  std::swap(memory_, other.memory_);
  std::swap(memory_bytes_, other.memory_bytes_);
  return *this;
}

KvCache::~KvCache() {
  if (memory_ != nullptr) ::munmap(memory_, memory_bytes_);
}

std::int64_t KvCache::bytes_per_position(const LlamaConfig& config, kernels::KvType type) {
  return layout_of(config, type).block_stride / kAttentionBlock;
}

std::int64_t KvCache::bytes(std::int64_t positions) const {
  return layers_.front().block_stride / kAttentionBlock * positions;
}

void KvCache::copy_positions(const KvCache& from, std::int64_t begin, std::int64_t end) {
  VILA_CHECK(from.memory_bytes_ == memory_bytes_ && from.type() == type() && end <= capacity());
  if (begin == end) return;
  const std::int64_t stride = layers_.front().block_stride;
  const std::int64_t first = begin / kAttentionBlock * stride;
  const std::int64_t last = round_up(end, kAttentionBlock) / kAttentionBlock * stride;
  std::memcpy(memory_ + first, from.memory_ + first, static_cast<std::size_t>(last - first));
}

void KvCache::release() {
  if (memory_ != nullptr) ::madvise(memory_, memory_bytes_, MADV_DONTNEED);
}

}  // namespace vila
