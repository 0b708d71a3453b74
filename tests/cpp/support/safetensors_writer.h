// Writes safetensors bytes for tests, true or false ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace vila::testing_support {

/// Header length, header padded with spaces to 8 bytes, data.
inline std::string safetensors_bytes(std::string header, std::string_view data) {
  while ((header.size() + 8) % 64 != 0) header += ' ';
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data);
}

}  // namespace vila::testing_support
