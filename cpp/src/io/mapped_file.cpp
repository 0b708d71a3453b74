#include "io/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vila/error.h"

namespace vila {
namespace {

constexpr std::int64_t kReadPiece = std::int64_t{8} << 20;

struct OpenFile {
  int fd = -1;
  std::size_t size = 0;

  explicit OpenFile(const std::filesystem::path& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) throw IoError("[open] cannot open " + path.string() + ": " + std::strerror(errno));
    struct stat info {};
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(fd);
      throw IoError("[open] expected a regular file, got something else: " + path.string());
    }
    size = static_cast<std::size_t>(info.st_size);
  }
  ~OpenFile() { ::close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
};

}  // namespace

FileBytes::FileBytes(FileBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      copy_(std::move(other.copy_)) {}

FileBytes& FileBytes::operator=(FileBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(copy_, other.copy_);
  return *this;
}

FileBytes::~FileBytes() {
  if (mapping_ != nullptr) ::munmap(mapping_, size_);
}

FileBytes FileBytes::map(const std::filesystem::path& path) {
  const OpenFile file(path);
  FileBytes result;
  if (file.size == 0) return result;
  void* mapping = ::mmap(nullptr, file.size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (mapping == MAP_FAILED) throw IoError("[open] cannot map " + path.string() + ": " + std::strerror(errno));
  result.mapping_ = mapping;
  result.size_ = file.size;
  result.data_ = static_cast<const std::byte*>(mapping);
  return result;
}

FileBytes FileBytes::read(const std::filesystem::path& path, ThreadPool& pool) {
  const OpenFile file(path);
  FileBytes result;
  if (file.size == 0) return result;
  result.copy_ = HugeBuffer(file.size);
  result.size_ = file.size;
  std::byte* data = result.copy_.data();
  result.data_ = data;
  const auto size = static_cast<std::int64_t>(file.size);
  pool.parallel_for((size + kReadPiece - 1) / kReadPiece, 1, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t offset = begin * kReadPiece;
    const std::int64_t limit = std::min(end * kReadPiece, size);
    while (offset < limit) {
      const ssize_t got = ::pread(file.fd, data + offset, static_cast<std::size_t>(limit - offset), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        throw IoError("[load] cannot read " + path.string() + " at byte " + std::to_string(offset) + ": " +
                      (got == 0 ? "the file became shorter" : std::strerror(errno)));
      }
      offset += got;
    }
  });
  return result;
}

}  // namespace vila
