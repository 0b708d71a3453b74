#include <string>

#include "engine/state.h"
#include "io/json.h"
#include "tensor/huge_buffer.h"

namespace vila {
namespace {

const char* projector_name(ProjectorConfig::Kind kind) {
  switch (kind) {
    case ProjectorConfig::Kind::identity:
      return "identity";
    case ProjectorConfig::Kind::linear:
      return "linear";
    case ProjectorConfig::Kind::mlp_gelu:
      return "mlp_gelu";
    case ProjectorConfig::Kind::mlp_downsample:
      return "mlp_downsample";
  }
  return "?";
}

}  // namespace

std::string Engine::info_json() const {
  const State& s = *state_;
  const LlamaConfig& llm = s.config.llm;
  const VisionConfig& vision = s.config.vision;
  JsonWriter formats;
  for (const auto& [format, bytes] : s.checkpoint->bytes_by_format()) formats.set(format, bytes);
  JsonWriter info;
  info.set("source", s.config.source_name)
      .set("llm", JsonWriter()
                      .set("dim", llm.dim)
                      .set("n_layers", llm.n_layers)
                      .set("n_heads", llm.n_heads)
                      .set("n_kv_heads", llm.n_kv_heads)
                      .set("head_dim", llm.head_dim)
                      .set("ffn_dim", llm.ffn_dim)
                      .set("vocab_size", llm.vocab_size))
      .set("vision", JsonWriter()
                         .set("kind", vision.kind == VisionConfig::Kind::siglip ? "siglip" : "intern_vit")
                         .set("dim", vision.dim)
                         .set("n_layers", vision.n_layers)
                         .set("n_heads", vision.n_heads)
                         .set("ffn_dim", vision.ffn_dim)
                         .set("image_size", s.config.image.size)
                         .set("scales", static_cast<std::int64_t>(s.config.s2 ? s.config.s2->scales.size() : 1))
                         .set("tokens_per_image", s.vision->n_tokens()))
      .set("projector", projector_name(s.config.projector.kind))
      .set("conv_mode", s.conv_mode)
      .set("max_context", s.max_context)
      .set("n_video_frames", s.config.n_video_frames)
      .set("weight_bytes", formats)
      .set("file_bytes", s.checkpoint->file_bytes())
      .set("kv_cache", name_of(s.options.kv_cache))
      .set("kv_cache_bytes_per_token", KvCache::bytes_per_position(llm, s.kv_type))
      .set("memory", s.options.memory == MemoryMode::fast ? "fast" : "mapped")
      .set("huge_page_bytes", huge_page_bytes())
      .set("isa", s.kernels->name)
      .set("threads", s.pool->size())
      .set("load_seconds", s.load_seconds);
  return info.dump();
}

}  // namespace vila
