// The errors of the engine. Every message reads "[where] what was wrong: expected ..., got ...".
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace vila {

/// One code per class below; the C interface and the Python exceptions use the same list.
enum class ErrorCode : std::uint8_t { invalid_argument, io, checkpoint, unsupported, capacity, internal };

/// Base of everything the library throws.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// The caller passed something that cannot be right.
class InvalidArgument : public Error {
 public:
  explicit InvalidArgument(const std::string& message) : Error(ErrorCode::invalid_argument, message) {}
};

/// A file is missing or cannot be read.
class IoError : public Error {
 public:
  explicit IoError(const std::string& message) : Error(ErrorCode::io, message) {}
};

/// A file can be read but its contents are wrong; lists everything that is wrong, not only the first thing.
class CheckpointError : public Error {
 public:
  explicit CheckpointError(const std::string& message) : Error(ErrorCode::checkpoint, message) {}
};

/// The request is valid but this build or this machine cannot do it.
class UnsupportedError : public Error {
 public:
  explicit UnsupportedError(const std::string& message) : Error(ErrorCode::unsupported, message) {}
};

/// The context window or the memory is exhausted.
class CapacityError : public Error {
 public:
  CapacityError(const std::string& message, std::int64_t needed, std::int64_t available)
      : Error(ErrorCode::capacity, message), needed_(needed), available_(available) {}
  [[nodiscard]] std::int64_t needed() const noexcept { return needed_; }
  [[nodiscard]] std::int64_t available() const noexcept { return available_; }

 private:
  std::int64_t needed_;
  std::int64_t available_;
};

/// A broken invariant of the library itself: a bug, please report it.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message) : Error(ErrorCode::internal, message) {}
};

}  // namespace vila
