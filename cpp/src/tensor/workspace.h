// Arena for activations: bump allocation inside frames that nest like the call stack. Grows while warming up; once the
// largest pass has run it allocates nothing any more. It lies on huge pages: rows of 4304 floats, all of them touched
// for every few columns of output, need another 4 KiB page each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/huge_buffer.h"
#include "tensor/tensor.h"

namespace vila {

/// One thread at a time.
class Workspace {
 public:
  /// Everything allocated after a frame was opened is given back when it goes.
  class Frame {
   public:
    explicit Frame(Workspace& workspace);
    ~Frame();
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Workspace& workspace_;
    std::size_t block_, used_;
  };

  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// 64-byte aligned, uninitialised. Valid until the enclosing frame goes. Throws CapacityError.
  void* allocate(std::size_t bytes);
  template <class T>
  T* allocate(std::int64_t count) {
    return static_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T)));
  }
  Rows rows(std::int64_t rows, std::int64_t cols) { return {allocate<float>(rows * cols), rows, cols, cols}; }

  [[nodiscard]] std::size_t capacity_bytes() const;

 private:
  struct Block {
    HugeBuffer data;
    std::size_t size = 0;
  };
  std::vector<Block> blocks_;
  std::size_t next_block_ = std::size_t{2} << 20;  // smallest size of a new block
  std::size_t block_ = 0;                          // index of the block in use
  std::size_t used_ = 0;                           // bytes used of it
  int depth_ = 0;                                  // open frames
};

}  // namespace vila
