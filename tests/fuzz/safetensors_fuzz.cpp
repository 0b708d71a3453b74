// Any bytes: parse_safetensors gives views that lie inside them, or throws a CheckpointError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "io/safetensors.h"
#include "vila/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  try {
    for (const auto& [name, tensor] : vila::parse_safetensors(bytes, "fuzz").tensors) {
      const auto* begin = static_cast<const std::byte*>(tensor.data);
      const std::int64_t length = tensor.elements() * vila::dtype_bytes(tensor.dtype);
      if (length < 0 || begin < bytes.data() || begin + length > bytes.data() + bytes.size()) std::abort();
    }
  } catch (const vila::CheckpointError&) {
  }
  return 0;
}
