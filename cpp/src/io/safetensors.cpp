#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "io/json.h"
#include "vila/error.h"

namespace vila {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

DType parse_dtype(const Json& json) {
  const std::string name = json.text();
  static constexpr std::pair<std::string_view, DType> kNames[] = {
      {"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16}, {"I32", DType::i32},
      {"I64", DType::i64}, {"I8", DType::s8},   {"U8", DType::u8}};
  for (const auto& [text, dtype] : kNames) {
    if (name == text) return dtype;
  }
  throw CheckpointError("[safetensors] " + json.path() + ": expected one of F32 F16 BF16 I32 I64 I8 U8, got " + name);
}

}  // namespace

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& where) {
  const auto fail = [&where](const std::string& what) -> CheckpointError {
    return CheckpointError("[safetensors] " + where + ": " + what);
  };
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) {
    throw fail("expected at least 8 bytes, got " + std::to_string(bytes.size()));
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8) {
    throw fail("expected a header that fits the file of " + std::to_string(bytes.size()) + " bytes, got a length of " +
               std::to_string(header_bytes));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);
  const auto data_bytes = static_cast<std::int64_t>(data.size());

  SafetensorsFile file;
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  const Json root = Json::parse(header, where);
  for (const std::string& name : root.keys()) {
    const Json entry = root.at(name);
    if (name == "__metadata__") {
      for (const std::string& key : entry.keys()) file.metadata[key] = entry.at(key).text();
      continue;
    }
    TensorView tensor;
    tensor.dtype = parse_dtype(entry.at("dtype"));
    const Json shape = entry.at("shape");
    std::int64_t size = dtype_bytes(tensor.dtype);
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const std::int64_t extent = shape.at(i).integer(0, INT64_MAX);
      if (extent != 0 && size > data_bytes / extent) {
        throw fail("tensor " + name + ": expected a shape within the file's " + std::to_string(data_bytes) +
                   " bytes of data, got more");
      }
      size *= extent;
      tensor.shape.push_back(extent);
    }
    const Json offsets = entry.at("data_offsets");
    const std::int64_t begin = offsets.at(std::size_t{0}).integer(0, data_bytes);
    const std::int64_t end = offsets.at(std::size_t{1}).integer(begin, data_bytes);
    if (end - begin != size) {
      throw fail("tensor " + name + ": expected " + std::to_string(size) + " bytes for its shape, got a range of " +
                 std::to_string(end - begin));
    }
    tensor.data = data.data() + begin;
    if (reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(dtype_bytes(tensor.dtype)) != 0) {
      throw fail("tensor " + name + ": expected a multiple of its element size as offset, got " +
                 std::to_string(begin));
    }
    if (size > 0) ranges.emplace_back(begin, end);
    file.tensors.emplace(name, std::move(tensor));
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) {
      throw fail("expected tensors side by side, got two that overlap at byte " + std::to_string(ranges[i].first));
    }
  }
  if (!ranges.empty() && ranges.back().second != data_bytes) {
    throw fail("expected data of " + std::to_string(ranges.back().second) + " bytes, got " +
               std::to_string(data_bytes));
  }
  return file;
}

}  // namespace vila
