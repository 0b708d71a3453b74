// Writes a small random model folder (docs/FORMATS.md) for tests that need an engine but no particular answer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace vila::testing_support {

struct TinyModel {
  std::string llm_format = "f32p16";     ///< of the language model's matrices
  std::string vision_format = "f32p16";  ///< of the tower's and projector's matrices
  bool intern_vit = false;
  bool s2 = false;
  std::uint64_t seed = 1;
};

/// SigLIP or InternViT on a 5 x 5 grid, mlp_downsample, two LLaMA layers with grouped queries, a byte-fallback
/// tokenizer, context 512.
void write_tiny_model(const std::filesystem::path& folder, const TinyModel& options = {});

}  // namespace vila::testing_support
