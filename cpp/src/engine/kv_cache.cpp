#include "engine/kv_cache.h"

#include <cstring>
#include <string>
#include <utility>

#include <sys/mman.h>

#include "base/check.h"

namespace vila {

KvCache::KvCache(const LlamaConfig& config, std::int64_t capacity, bool f16)
    : capacity_(round_up(capacity, kernels::kAttentionBlock)), element_bytes_(f16 ? 2 : 4) {
  kernels::KvLayout layout;
  layout.n_kv_heads = config.n_kv_heads;
  layout.head_dim = config.head_dim;
  layout.capacity = capacity_;
  layout.f16 = f16;
  const auto k_bytes = static_cast<std::size_t>(config.n_kv_heads * capacity_ * config.head_dim) * element_bytes_;
  const auto v_bytes =
      static_cast<std::size_t>(config.n_kv_heads * capacity_ * round_up(config.head_dim, 16)) * element_bytes_;
  memory_bytes_ = static_cast<std::size_t>(config.n_layers) * (k_bytes + v_bytes);
  void* memory =
      ::mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw CapacityError(
        "[session] no address space for the KV cache: expected " + std::to_string(memory_bytes_) + " bytes",
        static_cast<std::int64_t>(memory_bytes_), 0);
  }
  memory_ = static_cast<std::byte*>(memory);
  std::byte* at = memory_;
  for (std::int64_t i = 0; i < config.n_layers; ++i) {
    layout.k = at;
    layout.v = at + k_bytes;
    layers_.push_back(layout);
    at += k_bytes + v_bytes;
  }
}

KvCache::KvCache(KvCache&& other) noexcept
    : capacity_(other.capacity_),
      element_bytes_(other.element_bytes_),
      layers_(std::move(other.layers_)),
      memory_(std::exchange(other.memory_, nullptr)),
      memory_bytes_(other.memory_bytes_) {}

KvCache& KvCache::operator=(KvCache&& other) noexcept {
  std::swap(capacity_, other.capacity_);
  std::swap(element_bytes_, other.element_bytes_);
  std::swap(layers_, other.layers_);
  std::swap(memory_, other.memory_);
  std::swap(memory_bytes_, other.memory_bytes_);
  return *this;
}

KvCache::~KvCache() {
  if (memory_ != nullptr) ::munmap(memory_, memory_bytes_);
}

std::int64_t KvCache::bytes(std::int64_t positions) const {
  return static_cast<std::int64_t>(memory_bytes_) / capacity_ * positions;
}

void KvCache::copy_positions(const KvCache& from, std::int64_t begin, std::int64_t end) {
  VILA_CHECK(from.capacity_ == capacity_ && from.layers_.size() == layers_.size() && end <= capacity_);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const kernels::KvLayout& to_layer = layers_[l];
    const kernels::KvLayout& from_layer = from.layers_[l];
    const auto copy = [this](void* to, const void* source, std::int64_t first, std::int64_t count) {
      std::memcpy(static_cast<std::byte*>(to) + static_cast<std::size_t>(first) * element_bytes_,
                  static_cast<const std::byte*>(source) + static_cast<std::size_t>(first) * element_bytes_,
                  static_cast<std::size_t>(count) * element_bytes_);
    };
    const std::int64_t v_dim = round_up(to_layer.head_dim, 16);
    const std::int64_t first_block = begin / 16 * 16;  // keys lie in blocks of 16 positions; whole blocks are copied
    const std::int64_t last_block = round_up(end, 16);
    for (std::int64_t head = 0; head < to_layer.n_kv_heads; ++head) {
      const std::int64_t base = head * capacity_;
      copy(to_layer.k, from_layer.k, (base + first_block) * to_layer.head_dim,
           (last_block - first_block) * to_layer.head_dim);
      copy(to_layer.v, from_layer.v, (base + begin) * v_dim, (end - begin) * v_dim);
    }
  }
}

void KvCache::release() {
  if (memory_ != nullptr) ::madvise(memory_, memory_bytes_, MADV_DONTNEED);
}

}  // namespace vila
