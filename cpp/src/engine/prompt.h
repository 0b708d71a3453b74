// From a public Prompt to what the model runs: the rendered text, its ids, and the media in order of their marks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"
#include "vila/engine.h"

namespace vila {

struct ResolvedPrompt {
  std::string text;               ///< rendered, "<image>" for every picture and frame
  std::vector<std::int32_t> ids;  ///< kImageId for every picture and frame
  std::vector<ImageView> media;   ///< in order of the marks; borrowed
};

/// Renders and tokenises. Throws InvalidArgument when marks and media differ in number, or roles are out of order.
ResolvedPrompt resolve_prompt(const Prompt& prompt, const Tokenizer& tokenizer, const std::string& conv_mode);

/// Identifies pixels and size; two pictures with one hash are taken for the same picture.
std::uint64_t hash_image(ImageView image);

}  // namespace vila
