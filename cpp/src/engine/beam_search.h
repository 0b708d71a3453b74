// Beam search over a prompt that is already in a cache, with the scoring of the reference's generate(): sums of log
// probabilities divided by the length, length_penalty 1, early_stopping off.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "models/llama.h"

namespace vila {

struct BeamSearchResult {
  std::vector<std::int32_t> ids;  ///< the best answer, ending with the end token if it met one
  bool ended = false;             ///< met an end token
  double score = 0;               ///< sum of log probabilities / length
};

struct BeamSearchOptions {
  int num_beams = 1;
  std::int64_t max_new_tokens = 0;
  std::span<const std::int32_t> end_ids;  ///< empty: never ends early
};

/// `first_logits` [V] are those of the prompt's last row; `prompt` holds `n_prompt` positions and is not changed.
/// Throws Cancelled.
BeamSearchResult beam_search(ExecContext& ctx, const LlamaModel& model, const KvCache& prompt, std::int64_t n_prompt,
                             std::span<const float> first_logits, const BeamSearchOptions& options);

}  // namespace vila
