#include "text/tokenizer_spec.h"

#include <algorithm>
#include <string_view>

#include "text/byte_bpe.h"
#include "text/pretokenizer.h"
#include "text/unicode.h"

namespace vila {
namespace {

void check_sizes(const TokenizerSpec& spec, std::vector<std::string>& problems) {
  const std::string size = std::to_string(spec.pieces.size());
  const bool is_spm = spec.kind == TokenizerSpec::Kind::spm_bpe;
  if (spec.pieces.empty()) problems.emplace_back("pieces: expected at least one, got none");
  if (spec.types.size() != spec.pieces.size()) {
    problems.push_back("types: expected " + size + ", got " + std::to_string(spec.types.size()));
  }
  if (is_spm && spec.scores.size() != spec.pieces.size()) {
    problems.push_back("scores: expected " + size + ", got " + std::to_string(spec.scores.size()));
  }
  if (is_spm && !spec.merges.empty()) {
    problems.push_back("merges: expected none in a SentencePiece model, got " + std::to_string(spec.merges.size()));
  }
  for (std::size_t i = 0; i < spec.types.size(); ++i) {
    if (spec.types[i] > 6) {
      problems.push_back("type of piece " + std::to_string(i) + ": expected 0..6, got " +
                         std::to_string(spec.types[i]));
    }
  }
  if (!is_spm && !parse_pretokenizer(spec.pretokenizer)) {
    problems.push_back("pretokenizer: expected \"llama3\" or \"gpt2\", got \"" + spec.pretokenizer + "\"");
  }
}

void check_ids(const TokenizerSpec& spec, std::vector<std::string>& problems) {
  const auto size = static_cast<std::int64_t>(spec.pieces.size());
  const auto check = [&](const char* name, const std::optional<std::int32_t>& id, bool needed) {
    if (id && (*id < 0 || *id >= size)) {
      problems.push_back(std::string(name) + ": expected an id below " + std::to_string(size) + ", got " +
                         std::to_string(*id));
    } else if (!id && needed) {
      problems.push_back(std::string(name) + ": expected an id because it is added to every text, got none");
    }
  };
  check("bos_id", spec.bos_id, spec.add_bos);
  check("eos_id", spec.eos_id, spec.add_eos);
  check("unk_id", spec.unk_id, false);
  check("pad_id", spec.pad_id, false);
}

void check_added_tokens(const TokenizerSpec& spec, std::vector<std::string>& problems) {
  std::vector<std::string_view> seen;
  for (const AddedToken& token : spec.added_tokens) {
    const std::string where = "added token \"" + token.content + "\"";
    if (token.content.empty() || !is_valid_utf8(token.content)) {
      problems.push_back(where + ": expected UTF-8 text, got " + (token.content.empty() ? "none" : "other bytes"));
    }
    if (token.id < 0 || token.id >= static_cast<std::int64_t>(spec.pieces.size())) {
      problems.push_back(where + ": expected an id below " + std::to_string(spec.pieces.size()) + ", got " +
                         std::to_string(token.id));
      continue;
    }
    const std::string& piece = spec.pieces[static_cast<std::size_t>(token.id)];
    const bool is_byte_level = spec.kind == TokenizerSpec::Kind::byte_bpe;
    if (piece != token.content && !(is_byte_level && piece == from_byte_alphabet(token.content))) {
      problems.push_back(where + ": expected it as piece " + std::to_string(token.id) + ", got \"" + piece + "\"");
    }
    seen.push_back(token.content);
  }
  std::sort(seen.begin(), seen.end());
  if (const auto twice = std::adjacent_find(seen.begin(), seen.end()); twice != seen.end()) {
    problems.push_back("added tokens: expected each once, got \"" + std::string(*twice) + "\" twice");
  }
}

}  // namespace

std::vector<std::string> find_problems(const TokenizerSpec& spec) {
  std::vector<std::string> problems;
  check_sizes(spec, problems);
  check_ids(spec, problems);
  check_added_tokens(spec, problems);
  return problems;
}

}  // namespace vila
