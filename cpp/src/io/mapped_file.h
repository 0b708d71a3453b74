// A file's bytes in memory: mapped in place, or copied into memory of our own on huge pages. The kernels don't know
// which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "tensor/huge_buffer.h"
#include "threading/thread_pool.h"

namespace vila {

/// Read-only bytes of a whole file. Movable, thread-safe to read.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&& other) noexcept;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  ~FileBytes();

  /// Maps the file; pages are read when touched and shared between processes. Throws IoError.
  static FileBytes map(const std::filesystem::path& path);
  /// Reads the file with all threads of `pool` into memory on huge pages. Throws IoError, CapacityError.
  static FileBytes read(const std::filesystem::path& path, ThreadPool& pool);

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  void* mapping_ = nullptr;
  HugeBuffer copy_;
};

}  // namespace vila
