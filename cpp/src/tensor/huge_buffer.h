// Anonymous memory that asks for transparent huge pages: virtual machines read those faster and more evenly than 4 KiB
// pages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vila {

/// Zeroed, writable, aligned to 2 MiB; pages come when they are touched. Movable.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  /// Throws CapacityError when the address space is exhausted.
  explicit HugeBuffer(std::size_t bytes);
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  ~HugeBuffer();

  [[nodiscard]] std::byte* data() const { return data_; }
  /// Gives the memory back to the system; the bytes are zero again.
  void release();

 private:
  std::byte* data_ = nullptr;
  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;  // with what lies before data_
};

/// Bytes of this process that lie on transparent huge pages; 0 where the system does not tell.
std::int64_t huge_page_bytes();

}  // namespace vila
