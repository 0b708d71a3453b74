#include "support/tiny_model.h"

#include <cmath>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>
#include <vector>

#include "layout/packing.h"
#include "support/safetensors_writer.h"

namespace vila::testing_support {
namespace {

constexpr std::int64_t kDim = 64, kFfn = 96, kHeads = 4, kKvHeads = 2, kLayers = 2, kVocab = 320;
constexpr std::int64_t kVisionDim = 48, kVisionFfn = 80, kVisionHeads = 2, kVisionLayers = 2, kPatch = 6, kSize = 30;

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

class Writer {
 public:
  explicit Writer(std::uint64_t seed) : random_(seed) {}

  void bytes(const std::string& name, const char* dtype, const std::vector<std::int64_t>& shape, const void* data,
             std::size_t size) {
    data_.resize((data_.size() + 63) / 64 * 64);  // tensors start on 64-byte borders
    header_ += ", \"" + name + "\": {\"dtype\": \"" + dtype + "\", \"shape\": " + shape_text(shape) +
               ", \"data_offsets\": [" + std::to_string(data_.size()) + ", " + std::to_string(data_.size() + size) +
               "]}";
    data_.append(static_cast<const char*>(data), size);
  }

  std::vector<float> normal(std::int64_t n, float mean, float deviation) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = distribution(random_);
    return values;
  }
  void vector(const std::string& name, std::int64_t n, float mean) {
    const std::vector<float> values = normal(n, mean, 0.1F);
    bytes(name, "F32", {n}, values.data(), values.size() * 4);
  }
  void table(const std::string& name, std::int64_t rows, std::int64_t cols) {
    const std::vector<float> values = normal(rows * cols, 0, 0.5F);
    bytes(name, "F32", {rows, cols}, values.data(), values.size() * 4);
  }
  void matrix(const std::string& name, const std::string& format, std::int64_t n, std::int64_t k) {
    const PackedMatrix packed =
        pack_matrix(normal(n * k, 0, 1.0F / std::sqrt(static_cast<float>(k))), n, k, WeightFormat::parse(format));
    const WeightFormat& f = packed.format;
    const std::int64_t tiles = f.padded_n(n) / kTileRows;
    const std::int64_t kp = f.padded_k(k);
    metadata_ += (metadata_.empty() ? "" : ", ") + ("\"" + name + "\": \"" + format + "\"");
    switch (f.kind) {
      case WeightKind::f32p16:
        bytes(name + ".weight", "F32", {tiles, k, 16}, packed.values.data(), packed.values.size());
        break;
      case WeightKind::f16p16:
        bytes(name + ".weight", "F16", {tiles, k, 16}, packed.values.data(), packed.values.size());
        break;
      case WeightKind::w8p16x4:
        bytes(name + ".weight", "U8", {tiles, kp / 4, 64}, packed.values.data(), packed.values.size());
        break;
      case WeightKind::w4p16x8:
        bytes(name + ".weight", "U8", {tiles, kp / 8, 64}, packed.values.data(), packed.values.size());
        break;
    }
    const std::vector<std::int64_t> groups = {tiles, f.n_groups(k), 16};
    if (!packed.scales.empty())
      bytes(name + ".weight_scale", "F16", groups, packed.scales.data(), packed.scales.size() * 2);
    if (!packed.zeros.empty()) bytes(name + ".weight_zero", "U8", groups, packed.zeros.data(), packed.zeros.size());
  }
  [[nodiscard]] std::string file() const {
    return safetensors_bytes("{\"__metadata__\": {" + metadata_ + "}" + header_ + "}", data_);
  }

 private:
  std::mt19937_64 random_;
  std::string header_, metadata_, data_;
};

void write_llm(Writer& w, const std::string& format) {
  w.table("llm.model.embed_tokens.weight", kVocab, kDim);
  for (std::int64_t i = 0; i < kLayers; ++i) {
    const std::string p = "llm.model.layers." + std::to_string(i) + ".";
    w.vector(p + "input_layernorm.weight", kDim, 1);
    w.vector(p + "post_attention_layernorm.weight", kDim, 1);
    const std::int64_t kv = kDim / kHeads * kKvHeads;
    w.matrix(p + "self_attn.q_proj", format, kDim, kDim);
    w.matrix(p + "self_attn.k_proj", format, kv, kDim);
    w.matrix(p + "self_attn.v_proj", format, kv, kDim);
    w.matrix(p + "self_attn.o_proj", format, kDim, kDim);
    w.matrix(p + "mlp.gate_proj", format, kFfn, kDim);
    w.matrix(p + "mlp.up_proj", format, kFfn, kDim);
    w.matrix(p + "mlp.down_proj", format, kDim, kFfn);
  }
  w.vector("llm.model.norm.weight", kDim, 1);
  w.matrix("llm.lm_head", format, kVocab, kDim);
}

void linear(Writer& w, const std::string& name, const std::string& format, std::int64_t n, std::int64_t k) {
  w.matrix(name, format, n, k);
  w.vector(name + ".bias", n, 0);
}

void write_vision(Writer& w, const TinyModel& o) {
  const std::int64_t patches = (kSize / kPatch) * (kSize / kPatch);
  linear(w, "vision.embeddings.patch_embedding", o.vision_format, kVisionDim, 3 * kPatch * kPatch);
  if (o.intern_vit) {
    w.vector("vision.embeddings.class_embedding", kVisionDim, 0);
    w.table("vision.embeddings.position_embedding", patches + 1, kVisionDim);
  } else {
    w.table("vision.embeddings.position_embedding.weight", patches, kVisionDim);
  }
  for (std::int64_t i = 0; i < kVisionLayers; ++i) {
    const std::string p = "vision.encoder.layers." + std::to_string(i) + ".";
    if (o.intern_vit) {
      w.vector(p + "norm1.weight", kVisionDim, 1);
      w.vector(p + "norm2.weight", kVisionDim, 1);
      w.vector(p + "attn.q_norm.weight", kVisionDim, 1);
      w.vector(p + "attn.k_norm.weight", kVisionDim, 1);
      w.vector(p + "ls1", kVisionDim, 0.5F);
      w.vector(p + "ls2", kVisionDim, 0.5F);
      w.matrix(p + "attn.qkv", o.vision_format, 3 * kVisionDim, kVisionDim);
      linear(w, p + "attn.proj", o.vision_format, kVisionDim, kVisionDim);
    } else {
      for (const char* norm : {"layer_norm1", "layer_norm2"}) {
        w.vector(p + norm + ".weight", kVisionDim, 1);
        w.vector(p + norm + ".bias", kVisionDim, 0);
      }
      for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
        linear(w, p + "self_attn." + name, o.vision_format, kVisionDim, kVisionDim);
      }
    }
    linear(w, p + "mlp.fc1", o.vision_format, kVisionFfn, kVisionDim);
    linear(w, p + "mlp.fc2", o.vision_format, kVisionDim, kVisionFfn);
  }
  const std::int64_t in = 4 * kVisionDim * (o.s2 ? 2 : 1);
  w.vector("projector.layers.1.weight", in, 1);
  w.vector("projector.layers.1.bias", in, 0);
  linear(w, "projector.layers.2", o.vision_format, kDim, in);
  linear(w, "projector.layers.4", o.vision_format, kDim, kDim);
}

// <unk> <s> </s>, 256 byte pieces, then letters and a few words.
void write_tokenizer(Writer& w) {
  std::vector<std::string> pieces = {"<unk>", "<s>", "</s>"};
  std::vector<std::uint8_t> types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(b));
    pieces.emplace_back(text);
    types.push_back(6);
  }
  for (const char* piece : {"\xE2\x96\x81", "USER", "ASSISTANT", ":", "what", "is", "this", "?", "\xE2\x96\x81this"})
    pieces.emplace_back(piece);
  for (char c = 'a'; c <= 'z'; ++c) pieces.emplace_back(1, c);
  types.resize(pieces.size(), 1);
  std::vector<float> scores;
  std::vector<std::int32_t> offsets = {0};
  std::string text;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    scores.push_back(types[i] == 1 ? -static_cast<float>(i) : 0.0F);
    text += pieces[i];
    offsets.push_back(static_cast<std::int32_t>(text.size()));
  }
  const auto n = static_cast<std::int64_t>(pieces.size());
  w.bytes("tokenizer.pieces", "U8", {static_cast<std::int64_t>(text.size())}, text.data(), text.size());
  w.bytes("tokenizer.piece_offsets", "I32", {n + 1}, offsets.data(), offsets.size() * 4);
  w.bytes("tokenizer.types", "U8", {n}, types.data(), types.size());
  w.bytes("tokenizer.scores", "F32", {n}, scores.data(), scores.size() * 4);
}

std::string config_text(const TinyModel& o) {
  std::ostringstream s;
  s << R"({"format": "vila_engine", "format_version": 1, "source": {"name": "tiny"}, "llm": {"dim": )" << kDim
    << R"(, "n_layers": )" << kLayers << R"(, "n_heads": )" << kHeads << R"(, "n_kv_heads": )" << kKvHeads
    << R"(, "head_dim": )" << kDim / kHeads << R"(, "ffn_dim": )" << kFfn << R"(, "vocab_size": )" << kVocab
    << R"(, "norm_eps": 1e-5, "rope_theta": 10000.0, "max_context": 1024, "attention_bias": false, "mlp_bias": false,)"
    << R"( "eos_token_ids": [2]}, "vision": {"kind": ")" << (o.intern_vit ? "intern_vit" : "siglip") << R"(", "dim": )"
    << kVisionDim << R"(, "n_layers": )" << kVisionLayers << R"(, "n_heads": )" << kVisionHeads << R"(, "ffn_dim": )"
    << kVisionFfn << R"(, "image_size": )" << kSize << R"(, "patch_size": )" << kPatch
    << R"(, "norm_eps": 1e-6, "activation": "gelu_tanh", "select_layer": -1, "drop_class_token": )"
    << (o.intern_vit ? "true" : "false") << R"(, "qk_norm": )" << (o.intern_vit ? "true" : "false") << R"(}, "s2": )"
    << (o.s2 ? "{\"scales\": [30, 60], \"max_split\": 30}" : "null")
    << R"(, "projector": {"kind": "mlp_downsample", "in_dim": )" << kVisionDim * (o.s2 ? 2 : 1) << R"(, "out_dim": )"
    << kDim << R"(, "depth": 2}, "image": {"size": )" << (o.s2 ? 2 * kSize : kSize)
    << R"(, "mode": "resize", "rescale": 0.00392156862745098, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},)"
    << R"( "video": {"n_frames": 8}, "prompt": {"conv_mode": "vicuna_v1"}, "tokenizer": {"kind": "spm_bpe", "bos_id": 1,)"
    << R"( "eos_id": 2, "unk_id": 0, "add_bos": true, "add_eos": false, "legacy": false, "special_tokens": ["<s>", "</s>", "<unk>"],)"
    << R"( "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},)"
    << R"( {"id": 2, "content": "</s>", "special": true}]}})";
  return s.str();
}

}  // namespace

void write_tiny_model(const std::filesystem::path& folder, const TinyModel& options) {
  std::filesystem::create_directories(folder);
  Writer writer(options.seed);
  write_llm(writer, options.llm_format);
  write_vision(writer, options);
  write_tokenizer(writer);
  std::ofstream(folder / "config.json") << config_text(options);
  std::ofstream(folder / "model.safetensors", std::ios::binary) << writer.file();
}

}  // namespace vila::testing_support
