#include "engine/kv_cache.h"

#include <cstring>

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
  memory_ = HugeBuffer(static_cast<std::size_t>(layout.capacity / kAttentionBlock * layout.block_stride));
  for (std::int64_t i = 0; i < config.n_layers; ++i) {
    layout.data = memory_.data() + i * layout.block_bytes();
    layers_.push_back(layout);
  }
}

std::int64_t KvCache::bytes_per_position(const LlamaConfig& config, kernels::KvType type) {
  return layout_of(config, type).block_stride / kAttentionBlock;
}

std::int64_t KvCache::bytes(std::int64_t positions) const {
  return layers_.front().block_stride / kAttentionBlock * positions;
}

void KvCache::copy_positions(const KvCache& from, std::int64_t begin, std::int64_t end) {
  VILA_CHECK(from.bytes(from.capacity()) == bytes(capacity()) && from.type() == type() && end <= capacity());
  if (begin == end) return;
  const std::int64_t stride = layers_.front().block_stride;
  const std::int64_t first = begin / kAttentionBlock * stride;
  const std::int64_t last = round_up(end, kAttentionBlock) / kAttentionBlock * stride;
  std::memcpy(memory_.data() + first, from.memory_.data() + first, static_cast<std::size_t>(last - first));
}

void KvCache::release() { memory_.release(); }

}  // namespace vila
