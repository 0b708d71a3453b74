#include "models/config.h"

#include "ops/ops.h"
#include "vila/error.h"

namespace vila {
namespace {

constexpr std::int64_t kMaxExtent = 1 << 24;  // larger extents are typing errors and would overflow sizes

std::int64_t extent(const Json& json, const char* key) { return json.at(key).integer(1, kMaxExtent); }
float real(const Json& json, const char* key) { return static_cast<float>(json.at(key).number()); }

[[noreturn]] void wrong(const std::string& where, const std::string& expected, const std::string& got) {
  throw CheckpointError("[config] " + where + ": expected " + expected + ", got " + got);
}

void check_head_dim(const std::string& where, std::int64_t head_dim) {
  if (head_dim > ops::kMaxHeadDim) {
    wrong(where, "at most " + std::to_string(ops::kMaxHeadDim), std::to_string(head_dim));
  }
}

LlamaConfig llama_config(const Json& json) {
  LlamaConfig c{};
  c.dim = extent(json, "dim");
  c.n_layers = extent(json, "n_layers");
  c.n_heads = extent(json, "n_heads");
  c.n_kv_heads = extent(json, "n_kv_heads");
  c.head_dim = extent(json, "head_dim");
  c.ffn_dim = extent(json, "ffn_dim");
  c.vocab_size = extent(json, "vocab_size");
  c.max_context = extent(json, "max_context");
  c.norm_eps = real(json, "norm_eps");
  c.rope_theta = real(json, "rope_theta");
  c.attention_bias = json.at("attention_bias").boolean();
  c.mlp_bias = json.at("mlp_bias").boolean();
  const Json eos = json.at("eos_token_ids");
  for (std::size_t i = 0; i < eos.size(); ++i) {
    c.eos_token_ids.push_back(static_cast<std::int32_t>(eos.at(i).integer(0, c.vocab_size - 1)));
  }
  if (c.n_heads % c.n_kv_heads != 0) {
    wrong(json.path(), "n_heads to be a multiple of n_kv_heads",
          std::to_string(c.n_heads) + " and " + std::to_string(c.n_kv_heads));
  }
  check_head_dim(json.path() + ".head_dim", c.head_dim);
  if (c.head_dim % 2 != 0) wrong(json.path() + ".head_dim", "an even number", std::to_string(c.head_dim));
  return c;
}

VisionConfig vision_config(const Json& json) {
  VisionConfig c{};
  const std::string kind = json.at("kind").text();
  if (kind == "siglip") {
    c.kind = VisionConfig::Kind::siglip;
  } else if (kind == "intern_vit") {
    c.kind = VisionConfig::Kind::intern_vit;
  } else {
    throw UnsupportedError("[config] vision.kind: expected siglip or intern_vit, got " + kind);
  }
  c.dim = extent(json, "dim");
  c.n_layers = json.at("n_layers").integer(0, kMaxExtent);
  c.n_heads = extent(json, "n_heads");
  c.ffn_dim = extent(json, "ffn_dim");
  c.image_size = extent(json, "image_size");
  c.patch_size = extent(json, "patch_size");
  c.norm_eps = real(json, "norm_eps");
  const std::string activation = json.at("activation").text();
  if (activation != "gelu" && activation != "gelu_tanh") {
    throw UnsupportedError("[config] vision.activation: expected gelu or gelu_tanh, got " + activation);
  }
  c.gelu_tanh = activation == "gelu_tanh";
  c.drop_class_token = json.at("drop_class_token").boolean();
  c.qk_norm = json.has("qk_norm") && json.at("qk_norm").boolean();
  if (json.at("select_layer").integer() != -1) {
    wrong("vision.select_layer", "-1 (blocks that are not needed are not written)",
          std::to_string(json.at("select_layer").integer()));
  }
  if (c.dim % c.n_heads != 0) wrong("vision.dim", "a multiple of n_heads", std::to_string(c.dim));
  check_head_dim("vision.dim / vision.n_heads", c.dim / c.n_heads);
  if (c.image_size < c.patch_size) wrong("vision.image_size", "at least patch_size", std::to_string(c.image_size));
  return c;
}

ProjectorConfig projector_config(const Json& json) {
  ProjectorConfig c{};
  const std::string kind = json.at("kind").text();
  if (kind == "identity") {
    c.kind = ProjectorConfig::Kind::identity;
  } else if (kind == "linear") {
    c.kind = ProjectorConfig::Kind::linear;
  } else if (kind == "mlp_gelu") {
    c.kind = ProjectorConfig::Kind::mlp_gelu;
  } else if (kind == "mlp_downsample") {
    c.kind = ProjectorConfig::Kind::mlp_downsample;
  } else {
    throw UnsupportedError("[config] projector.kind: expected identity, linear, mlp_gelu or mlp_downsample, got " +
                           kind);
  }
  c.in_dim = extent(json, "in_dim");
  c.out_dim = extent(json, "out_dim");
  c.depth = json.has("depth") ? json.at("depth").integer(1, 64) : 1;
  return c;
}

ImageConfig image_config(const Json& json) {
  ImageConfig c{};
  c.size = json.at("size").integer(1, 16384);
  const std::string mode = json.at("mode").text();
  if (mode != "resize" && mode != "pad") {
    throw UnsupportedError("[config] image.mode: expected resize or pad, got " + mode);
  }
  c.pad = mode == "pad";
  c.rescale = json.at("rescale").number();
  for (std::size_t i = 0; i < 3; ++i) {
    c.mean[i] = static_cast<float>(json.at("mean").at(i).number());
    c.std[i] = static_cast<float>(json.at("std").at(i).number());
    if (!(c.std[i] > 0)) wrong("image.std", "positive numbers", std::to_string(c.std[i]));
  }
  return c;
}

}  // namespace

ModelConfig ModelConfig::from_json(const Json& json) {
  ModelConfig c{};
  c.llm = llama_config(json.at("llm"));
  c.vision = vision_config(json.at("vision"));
  c.projector = projector_config(json.at("projector"));
  c.image = image_config(json.at("image"));
  if (json.has("s2")) {
    S2Config s2;
    const Json scales = json.at("s2").at("scales");
    for (std::size_t i = 0; i < scales.size(); ++i) s2.scales.push_back(scales.at(i).integer(1, 16384));
    s2.max_split = json.at("s2").at("max_split").integer(1, 16384);
    if (s2.scales.empty() || s2.max_split != c.vision.image_size) {
      wrong("s2", "scales and a max_split equal to vision.image_size", std::to_string(s2.max_split));
    }
    for (const std::int64_t scale : s2.scales) {
      if (scale % s2.max_split != 0) {
        wrong("s2.scales", "multiples of max_split " + std::to_string(s2.max_split), std::to_string(scale));
      }
    }
    if (s2.scales.front() != s2.max_split)
      wrong("s2.scales", "the first to be max_split", std::to_string(s2.scales.front()));
    if (s2.scales.back() != c.image.size) wrong("image.size", "the largest scale", std::to_string(c.image.size));
    c.s2 = s2;
  } else if (c.image.size != c.vision.image_size) {
    wrong("image.size", std::to_string(c.vision.image_size) + " (vision.image_size)", std::to_string(c.image.size));
  }
  const std::int64_t scales = c.s2 ? static_cast<std::int64_t>(c.s2->scales.size()) : 1;
  if (c.projector.in_dim != c.vision.dim * scales) {
    wrong("projector.in_dim", std::to_string(c.vision.dim * scales), std::to_string(c.projector.in_dim));
  }
  if (c.projector.out_dim != c.llm.dim) {
    wrong("projector.out_dim", std::to_string(c.llm.dim) + " (llm.dim)", std::to_string(c.projector.out_dim));
  }
  if (c.projector.kind == ProjectorConfig::Kind::mlp_downsample && c.vision.has_class_token() &&
      !c.vision.drop_class_token) {
    wrong("projector.kind", "a projector without a grid when the class token is kept", "mlp_downsample");
  }
  c.n_video_frames = json.at("video").at("n_frames").integer(1, 4096);
  c.conv_mode = json.at("prompt").at("conv_mode").text();
  c.source_name = json.has("source") && json.at("source").has("name") ? json.at("source").at("name").text() : "";
  return c;
}

}  // namespace vila
