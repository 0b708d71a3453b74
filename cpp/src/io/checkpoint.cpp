#include "io/checkpoint.h"

#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "vila/error.h"

namespace vila {
namespace {

constexpr std::int64_t kFormatVersion = 1;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError("[load] cannot open " + path.string() + ": expected a model folder with config.json");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
    case DType::s8:
      return "I8";
    case DType::u8:
      return "U8";
  }
  return "?";
}

std::string describe(DType dtype, const std::vector<std::int64_t>& shape) {
  std::string text = std::string(dtype_name(dtype)) + " [";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

struct Checkpoint::State {
  FileBytes bytes;
  SafetensorsFile file;
  std::optional<Json> config;
  mutable std::set<std::string, std::less<>> asked;
  mutable std::vector<std::string> wrong;

  // The tensor if it is there with this type and shape, else a note and null.
  const TensorView* find(const std::string& name, DType dtype, const std::vector<std::int64_t>& shape) const {
    asked.insert(name);
    const auto it = file.tensors.find(name);
    if (it == file.tensors.end()) {
      wrong.push_back(name + ": expected " + describe(dtype, shape) + ", got nothing");
      return nullptr;
    }
    if (it->second.dtype != dtype || it->second.shape != shape) {
      wrong.push_back(name + ": expected " + describe(dtype, shape) + ", got " +
                      describe(it->second.dtype, it->second.shape));
      return nullptr;
    }
    return &it->second;
  }
};

Checkpoint::Checkpoint(const std::filesystem::path& folder, Memory memory, ThreadPool& pool)
    : state_(std::make_unique<State>()) {
  const std::filesystem::path config_path = folder / "config.json";
  state_->config = Json::parse(read_file(config_path), "config.json");
  const Json& config = *state_->config;
  if (!config.has("format") || config.at("format").text() != "vila_engine") {
    throw CheckpointError("[load] " + config_path.string() +
                          ": expected \"format\": \"vila_engine\", got a folder of another kind; convert it first "
                          "(vila-engine convert SRC -o DST)");
  }
  const std::int64_t version = config.at("format_version").integer();
  if (version != kFormatVersion) {
    throw UnsupportedError("[load] format_version: expected 1, got " + std::to_string(version));
  }
  const std::filesystem::path weights = folder / "model.safetensors";
  state_->bytes = memory == Memory::mapped ? FileBytes::map(weights) : FileBytes::read(weights, pool);
  state_->file = parse_safetensors(state_->bytes.bytes(), weights.filename().string());
}

Checkpoint::~Checkpoint() = default;

const Json& Checkpoint::config() const { return *state_->config; }
std::int64_t Checkpoint::file_bytes() const { return static_cast<std::int64_t>(state_->bytes.bytes().size()); }

const TensorView& Checkpoint::tensor(std::string_view name, DType dtype, std::size_t rank) const {
  state_->asked.emplace(name);
  const auto it = state_->file.tensors.find(name);
  const std::string expected = std::string(dtype_name(dtype)) + " of rank " + std::to_string(rank);
  if (it == state_->file.tensors.end()) {
    throw CheckpointError("[load] " + std::string(name) + ": expected " + expected + ", got nothing");
  }
  if (it->second.dtype != dtype || it->second.shape.size() != rank) {
    throw CheckpointError("[load] " + std::string(name) + ": expected " + expected + ", got " +
                          describe(it->second.dtype, it->second.shape));
  }
  return it->second;
}

void Checkpoint::finish() const {
  std::vector<std::string> all = state_->wrong;
  if (all.empty()) {
    for (const auto& [name, tensor] : state_->file.tensors) {
      if (!state_->asked.contains(name)) {
        all.push_back(name + ": expected no such tensor, got " + describe(tensor.dtype, tensor.shape));
      }
    }
  }
  if (all.empty()) return;
  std::string message = "[load] " + std::to_string(all.size()) + " tensors are missing, wrong or unknown:";
  for (const std::string& line : all) message += "\n  " + line;
  throw CheckpointError(message);
}

std::vector<std::pair<std::string, std::int64_t>> Checkpoint::bytes_by_format() const {
  std::map<std::string, std::int64_t> sums;
  for (const auto& [name, tensor] : state_->file.tensors) {
    std::string key = dtype_name(tensor.dtype);
    for (const char* part : {".weight", ".weight_scale", ".weight_zero", ".weight_offset"}) {
      const std::string suffix(part);
      if (name.size() <= suffix.size() || name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0)
        continue;
      const auto it = state_->file.metadata.find(name.substr(0, name.size() - suffix.size()));
      if (it != state_->file.metadata.end()) key = it->second;
    }
    sums[key] += tensor.elements() * dtype_bytes(tensor.dtype);
  }
  return {sums.begin(), sums.end()};
}

std::string WeightScope::full(std::string_view name) const {
  return prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
}

WeightScope WeightScope::sub(std::string_view name) const { return {*checkpoint_, full(name)}; }
WeightScope WeightScope::sub(std::string_view name, std::int64_t index) const {
  return {*checkpoint_, full(name) + "." + std::to_string(index)};
}

bool WeightScope::has(std::string_view name) const { return checkpoint_->state_->file.tensors.contains(full(name)); }

const float* WeightScope::vector(std::string_view name, std::int64_t n) const {
  const TensorView* tensor = checkpoint_->state_->find(full(name), DType::f32, {n});
  return tensor ? tensor->as<float>() : nullptr;
}

const float* WeightScope::table(std::string_view name, std::int64_t rows, std::int64_t cols) const {
  const TensorView* tensor = checkpoint_->state_->find(full(name), DType::f32, {rows, cols});
  return tensor ? tensor->as<float>() : nullptr;
}

TensorView WeightScope::rows(std::string_view name, std::int64_t rows, std::int64_t cols) const {
  const auto it = checkpoint_->state_->file.tensors.find(full(name));
  const bool half = it != checkpoint_->state_->file.tensors.end() && it->second.dtype == DType::f16;
  const TensorView* tensor = checkpoint_->state_->find(full(name), half ? DType::f16 : DType::f32, {rows, cols});
  return tensor ? *tensor : TensorView{};
}

Weight WeightScope::matrix(std::string_view name, std::int64_t n, std::int64_t k) const {
  const Checkpoint::State& state = *checkpoint_->state_;
  const std::string base = full(name);
  Weight weight;
  weight.n = n;
  weight.k = k;
  const auto format = state.file.metadata.find(base);
  if (format == state.file.metadata.end()) {
    state.wrong.push_back(base + ": expected a packed matrix [" + std::to_string(n) + ", " + std::to_string(k) +
                          "] with its format in the metadata, got none");
    return weight;
  }
  try {
    weight.format = WeightFormat::parse(format->second);
  } catch (const Error& error) {
    state.wrong.push_back(base + ": " + error.what());
    return weight;
  }
  const WeightFormat& f = weight.format;
  const std::int64_t tiles = f.padded_n(n) / kTileRows;
  const std::int64_t k_padded = f.padded_k(k);
  const auto bytes_of = [&](const TensorView* t) { return t ? t->as<std::uint8_t>() : nullptr; };
  switch (f.kind) {
    case WeightKind::f32p16:
      weight.values = bytes_of(state.find(base + ".weight", DType::f32, {tiles, k, 16}));
      break;
    case WeightKind::f16p16:
      weight.values = bytes_of(state.find(base + ".weight", DType::f16, {tiles, k, 16}));
      break;
    case WeightKind::w8p16x4:
      weight.values = bytes_of(state.find(base + ".weight", DType::u8, {tiles, k_padded / 4, 64}));
      break;
    case WeightKind::w4p16x8:
      weight.values = bytes_of(state.find(base + ".weight", DType::u8, {tiles, k_padded / 8, 64}));
      break;
  }
  if (!f.is_integer()) return weight;
  const std::vector<std::int64_t> groups = {tiles, f.n_groups(k), 16};
  if (const TensorView* scale = state.find(base + ".weight_scale", DType::f16, groups)) {
    weight.scales = scale->as<std::uint16_t>();
  }
  if (f.zero == ZeroKind::u8) {
    weight.zeros = bytes_of(state.find(base + ".weight_zero", DType::u8, groups));
  } else if (f.zero == ZeroKind::f16_offset) {
    if (const TensorView* offset = state.find(base + ".weight_offset", DType::f16, groups)) {
      weight.offsets = offset->as<std::uint16_t>();
    }
  }
  return weight;
}

}  // namespace vila
