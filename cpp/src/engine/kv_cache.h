// The keys and values of one conversation, for all layers. Address space is reserved for the whole context; memory is
// taken by the system as positions are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kernel_table.h"
#include "models/config.h"
#include "tensor/huge_buffer.h"

namespace vila {

/// Movable; one thread at a time. Which positions count is the owner's business: writing a position replaces it.
/// A block of positions of all layers lies together, so that what was written is one piece of memory.
class KvCache {
 public:
  /// Room for `capacity` positions. Throws CapacityError when the address space cannot be had.
  KvCache(const LlamaConfig& config, std::int64_t capacity, kernels::KvType type);

  [[nodiscard]] std::span<const kernels::KvLayout> layers() const { return layers_; }
  [[nodiscard]] std::int64_t capacity() const { return layers_.front().capacity; }
  [[nodiscard]] kernels::KvType type() const { return layers_.front().type; }
  /// Bytes that one position of all layers takes.
  [[nodiscard]] static std::int64_t bytes_per_position(const LlamaConfig& config, kernels::KvType type);
  /// Bytes that `positions` positions of all layers take.
  [[nodiscard]] std::int64_t bytes(std::int64_t positions) const;
  /// Copies positions begin..end of a cache of the same shape, and with them the rest of their blocks.
  void copy_positions(const KvCache& from, std::int64_t begin, std::int64_t end);
  /// Gives the memory of all positions back to the system.
  void release();

 private:
  std::vector<kernels::KvLayout> layers_;
  HugeBuffer memory_;
};

}  // namespace vila
