// Rebuilds the tokenizer that a model folder carries (docs/FORMATS.md, section Tokenizer).
#pragma once

#include "io/checkpoint.h"
#include "text/tokenizer.h"

namespace vila {

/// Throws CheckpointError with what was expected and found.
Tokenizer load_tokenizer(const Checkpoint& checkpoint);

}  // namespace vila
