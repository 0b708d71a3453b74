// Reads the safetensors container: a header of names, types, shapes and byte ranges, then the bytes. Every claim of the
// header is checked before anything is used.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace vila {

struct SafetensorsFile {
  std::map<std::string, TensorView, std::less<>> tensors;  ///< data points into the bytes given
  std::map<std::string, std::string, std::less<>> metadata;
};

/// Parses a whole file's bytes. Throws CheckpointError for every way a header can lie: sizes beyond the file, overlaps,
/// holes, shapes that do not fit the byte range, unknown types, misaligned data. `where` names the file in messages.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& where);

}  // namespace vila
