// A file's bytes in memory: mapped in place, or copied into memory of our own on huge pages. The kernels don't know which.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

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
  /// Reads the file with all threads of `pool` into anonymous memory that asks for transparent huge pages: virtual
  /// machines read those faster and more evenly than 4 KiB pages. Throws IoError, CapacityError.
  static FileBytes read(const std::filesystem::path& path, ThreadPool& pool);

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  void* mapping_ = nullptr;
  std::size_t mapping_size_ = 0;
};

}  // namespace vila
