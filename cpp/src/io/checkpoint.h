// A converted model folder (docs/FORMATS.md): its configuration, and its tensors bound by name with the shape they must
// have. Asking is checking; what is wrong is collected so that one load reports all of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "tensor/tensor.h"
#include "threading/thread_pool.h"

namespace vila {

class Checkpoint;

/// A cursor in the tree of names. A request that cannot be met is noted and answered with an empty view;
/// Checkpoint::finish() throws what was noted.
class WeightScope {
 public:
  [[nodiscard]] WeightScope sub(std::string_view name) const;
  [[nodiscard]] WeightScope sub(std::string_view name, std::int64_t index) const;
  [[nodiscard]] bool has(std::string_view name) const;
  /// f32 [n].
  [[nodiscard]] const float* vector(std::string_view name, std::int64_t n) const;
  /// f32 [rows, cols], row-major and not packed.
  [[nodiscard]] const float* table(std::string_view name, std::int64_t rows, std::int64_t cols) const;
  /// f32 or f16 [rows, cols], row-major (embeddings).
  [[nodiscard]] TensorView rows(std::string_view name, std::int64_t rows, std::int64_t cols) const;
  /// Packed matrix [n, k]; `name` without ".weight".
  [[nodiscard]] Weight matrix(std::string_view name, std::int64_t n, std::int64_t k) const;

 private:
  friend class Checkpoint;
  WeightScope(const Checkpoint& checkpoint, std::string prefix)
      : checkpoint_(&checkpoint), prefix_(std::move(prefix)) {}
  [[nodiscard]] std::string full(std::string_view name) const;
  const Checkpoint* checkpoint_;
  std::string prefix_;
};

/// Opened, parsed, and kept alive as long as anything views it. Binding is for one thread; reading afterwards is free.
class Checkpoint {
 public:
  enum class Memory : std::uint8_t { fast, mapped };

  /// Throws IoError or CheckpointError.
  Checkpoint(const std::filesystem::path& folder, Memory memory, ThreadPool& pool);
  ~Checkpoint();
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  [[nodiscard]] const Json& config() const;
  [[nodiscard]] WeightScope root() const { return {*this, ""}; }
  /// A tensor by its full name with a given type and rank; throws CheckpointError at once (tokenizer data).
  [[nodiscard]] const TensorView& tensor(std::string_view name, DType dtype, std::size_t rank) const;
  /// Throws one CheckpointError with everything that was missing or wrong, and every tensor nobody asked for.
  void finish() const;

  [[nodiscard]] std::int64_t file_bytes() const;
  /// Bytes of packed weights per format, for reports.
  [[nodiscard]] std::vector<std::pair<std::string, std::int64_t>> bytes_by_format() const;

 private:
  friend class WeightScope;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vila
