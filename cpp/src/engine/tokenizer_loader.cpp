#include "engine/tokenizer_loader.h"

#include <optional>
#include <string>

#include "vila/error.h"

namespace vila {
namespace {

std::optional<std::int32_t> optional_id(const Json& json, const char* key) {
  if (!json.has(key)) return std::nullopt;
  return static_cast<std::int32_t>(json.at(key).integer(0, INT32_MAX));
}

bool flag(const Json& json, const char* key, bool fallback) {
  return json.has(key) ? json.at(key).boolean() : fallback;
}

void read_pieces(const Checkpoint& checkpoint, TokenizerSpec& spec) {
  const TensorView& bytes = checkpoint.tensor("tokenizer.pieces", DType::u8, 1);
  const TensorView& offsets = checkpoint.tensor("tokenizer.piece_offsets", DType::i32, 1);
  const TensorView& types = checkpoint.tensor("tokenizer.types", DType::u8, 1);
  const std::int64_t n_pieces = types.elements();
  if (offsets.elements() != n_pieces + 1) {
    throw CheckpointError("[load] tokenizer.piece_offsets: expected " + std::to_string(n_pieces + 1) +
                          " entries, got " + std::to_string(offsets.elements()));
  }
  const auto* at = offsets.as<std::int32_t>();
  const auto* text = bytes.as<char>();
  for (std::int64_t i = 0; i < n_pieces; ++i) {
    if (at[i] < 0 || at[i + 1] < at[i] || at[i + 1] > bytes.elements()) {
      throw CheckpointError("[load] tokenizer.piece_offsets[" + std::to_string(i) +
                            "]: expected ascending offsets up to " + std::to_string(bytes.elements()) + ", got " +
                            std::to_string(at[i]) + ".." + std::to_string(at[i + 1]));
    }
    spec.pieces.emplace_back(text + at[i], static_cast<std::size_t>(at[i + 1] - at[i]));
  }
  spec.types.assign(types.as<std::uint8_t>(), types.as<std::uint8_t>() + n_pieces);
}

}  // namespace

Tokenizer load_tokenizer(const Checkpoint& checkpoint) {
  const Json json = checkpoint.config().at("tokenizer");
  TokenizerSpec spec;
  read_pieces(checkpoint, spec);
  const std::string kind = json.at("kind").text();
  if (kind == "spm_bpe") {
    spec.kind = TokenizerSpec::Kind::spm_bpe;
    const TensorView& scores = checkpoint.tensor("tokenizer.scores", DType::f32, 1);
    spec.scores.assign(scores.as<float>(), scores.as<float>() + scores.elements());
  } else if (kind == "byte_bpe") {
    spec.kind = TokenizerSpec::Kind::byte_bpe;
    spec.pretokenizer = json.at("pretokenizer").text();
    spec.ignore_merges = flag(json, "ignore_merges", false);
    const TensorView& merges = checkpoint.tensor("tokenizer.merges", DType::i32, 2);
    if (merges.shape[1] != 2) {
      throw CheckpointError("[load] tokenizer.merges: expected pairs, got " + std::to_string(merges.shape[1]) +
                            " columns");
    }
    for (std::int64_t i = 0; i < merges.shape[0]; ++i) {
      spec.merges.emplace_back(merges.as<std::int32_t>()[2 * i], merges.as<std::int32_t>()[2 * i + 1]);
    }
  } else {
    throw UnsupportedError("[load] tokenizer.kind: expected spm_bpe or byte_bpe, got " + kind);
  }
  spec.add_bos = flag(json, "add_bos", false);
  spec.add_eos = flag(json, "add_eos", false);
  spec.legacy = flag(json, "legacy", false);
  spec.add_dummy_prefix = flag(json, "add_dummy_prefix", true);
  spec.remove_extra_whitespaces = flag(json, "remove_extra_whitespaces", false);
  spec.bos_id = optional_id(json, "bos_id");
  spec.eos_id = optional_id(json, "eos_id");
  spec.unk_id = optional_id(json, "unk_id");
  spec.pad_id = optional_id(json, "pad_id");
  const Json specials = json.at("special_tokens");
  for (std::size_t i = 0; i < specials.size(); ++i) spec.special_tokens.push_back(specials.at(i).text());
  const Json added = json.at("added_tokens");
  for (std::size_t i = 0; i < added.size(); ++i) {
    const Json entry = added.at(i);
    AddedToken token;
    token.id = static_cast<std::int32_t>(entry.at("id").integer(0, INT32_MAX));
    token.content = entry.at("content").text();
    token.special = flag(entry, "special", false);
    token.lstrip = flag(entry, "lstrip", false);
    token.rstrip = flag(entry, "rstrip", false);
    token.single_word = flag(entry, "single_word", false);
    token.normalized = flag(entry, "normalized", false);
    spec.added_tokens.push_back(std::move(token));
  }
  return Tokenizer(std::move(spec));
}

}  // namespace vila
