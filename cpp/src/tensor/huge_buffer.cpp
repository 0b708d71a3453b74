#include "tensor/huge_buffer.h"

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

#include <sys/mman.h>

#include "vila/error.h"

namespace vila {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

HugeBuffer::HugeBuffer(std::size_t bytes)
    : mapping_bytes_((bytes + kHugePage - 1) / kHugePage * kHugePage + kHugePage) {
  void* mapping =
      ::mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    throw CapacityError("[memory] expected " + std::to_string(mapping_bytes_) + " bytes of address space, got none",
                        static_cast<std::int64_t>(mapping_bytes_), 0);
  }
  mapping_ = mapping;
  const auto address = reinterpret_cast<std::uintptr_t>(mapping);
  data_ = reinterpret_cast<std::byte*>((address + kHugePage - 1) / kHugePage * kHugePage);
#ifdef MADV_HUGEPAGE
  ::madvise(data_, mapping_bytes_ - kHugePage, MADV_HUGEPAGE);
#endif
}

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(std::exchange(other.mapping_bytes_, 0)) {}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

HugeBuffer::~HugeBuffer() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapping_bytes_);
}

void HugeBuffer::release() {
  if (mapping_ != nullptr) ::madvise(mapping_, mapping_bytes_, MADV_DONTNEED);
}

std::int64_t huge_page_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string word; file >> word;) {
    std::int64_t kib = 0;
    if (word == "AnonHugePages:" && file >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace vila
