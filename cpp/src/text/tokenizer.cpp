#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/detokenizer.h"
#include "text/tokenizer_state.h"
#include "text/unicode.h"
#include "vila/error.h"

namespace vila {
namespace {

constexpr std::size_t kMaxListed = 20;

void throw_if_any(const std::vector<std::string>& problems) {
  if (problems.empty()) return;
  std::string message = "[tokenizer] the description is inconsistent: ";
  for (std::size_t i = 0; i < problems.size() && i < kMaxListed; ++i) message += (i > 0 ? "; " : "") + problems[i];
  if (problems.size() > kMaxListed) message += "; and " + std::to_string(problems.size() - kMaxListed) + " more";
  throw CheckpointError(message);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const std::size_t found = std::min(text.find(from, pos), text.size());
    out += text.substr(pos, found - pos);
    if (found < text.size()) out += to;
    pos = found + from.size();
  }
  return out;
}

/// Tokens of a text as the slow tokenizer lists them: ids, and the texts of those that the model does not know.
class TokenList {
 public:
  explicit TokenList(const Tokenizer::State& state) : state_(state) {}

  void add(std::int32_t id) { ids_.push_back(id); }

  /// Adds the tokens of one run from index `skip` on.
  void add(const SpmIds& run, std::size_t skip) {
    std::size_t u = 0;
    for (std::size_t i = 0; i < run.ids.size(); ++i) {
      const bool unknown = u < run.unknown.size() && run.unknown[u].first == i;
      const std::size_t at = u;
      if (unknown) ++u;
      if (i < skip) continue;
      const std::int32_t added = unknown ? state_.slow->id_of(run.unknown[at].second) : -1;
      if (unknown && added < 0) {
        if (ids_.size() < 2) unknown_[ids_.size()] = run.unknown[at].second;
        ids_.push_back(state_.renamed[static_cast<std::size_t>(run.ids[i])]);
      } else {
        ids_.push_back(unknown ? added : state_.renamed[static_cast<std::size_t>(run.ids[i])]);
      }
    }
  }

  /// transformers drops a space of its own that stands alone before a special token.
  void drop_lone_prefix() {
    if (ids_.size() > 1 && text(0) == kSpaceSymbol && state_.special_contents.contains(text(1)))
      ids_.erase(ids_.begin());
  }

  [[nodiscard]] std::vector<std::int32_t> take() { return std::move(ids_); }

 private:
  [[nodiscard]] std::string_view text(std::size_t i) const {
    return unknown_[i].empty() ? std::string_view(state_.spec.pieces[static_cast<std::size_t>(ids_[i])]) : unknown_[i];
  }

  const Tokenizer::State& state_;
  std::vector<std::int32_t> ids_;
  std::string unknown_[2];  // texts of the first two tokens where the model does not know them
};

}  // namespace

Tokenizer::State::State(TokenizerSpec spec_in) : spec(std::move(spec_in)) {
  throw_if_any(find_problems(spec));
  const std::size_t size = spec.pieces.size();
  for (const std::string& content : spec.special_tokens) special_contents.insert(content);
  for (std::size_t i = 0; i < size; ++i) {
    if (!spec.pieces[i].empty()) ids.emplace(spec.pieces[i], static_cast<std::int32_t>(i));
  }
  for (const AddedToken& token : spec.added_tokens) ids.insert_or_assign(token.content, token.id);
  special.resize(size);
  for (const std::string& content : spec.special_tokens) {
    if (const auto found = ids.find(content); found != ids.end())
      special[static_cast<std::size_t>(found->second)] = true;
  }
  if (spec.kind == TokenizerSpec::Kind::spm_bpe) {
    prepare_spm();
  } else {
    prepare_bytes();
  }
}

void Tokenizer::State::prepare_spm() {
  std::vector<std::string> problems;
  spm.emplace(spec.pieces, spec.scores, spec.types, problems);
  throw_if_any(problems);
  slow.emplace(spec.added_tokens);
  std::size_t base_size = 0;  // pieces of the SentencePiece model
  renamed.resize(spec.pieces.size());
  for (std::size_t i = 0; i < spec.pieces.size(); ++i) {
    const bool is_hole = spec.types[i] == 5 && spec.pieces[i].empty();
    if (spec.types[i] != 0 && !is_hole) base_size = i + 1;
    const std::int32_t added = slow->id_of(spec.pieces[i]);
    renamed[i] = added >= 0 ? added : static_cast<std::int32_t>(i);
  }
  if (!spec.unk_id) spec.unk_id = spm->unknown_id();
  unknown_text = spec.pieces[static_cast<std::size_t>(*spec.unk_id)];
  unknown_size = spm->encode(unknown_text, spm_options()).ids.size();
  separate.resize(spec.pieces.size());
  for (const AddedToken& token : spec.added_tokens) {
    const auto id = static_cast<std::size_t>(token.id);
    const bool named =
        token.id == spec.bos_id || token.id == spec.eos_id || token.id == spec.unk_id || token.id == spec.pad_id;
    separate[id] = !special[id] || (!named && id >= base_size);
  }
}

void Tokenizer::State::prepare_bytes() {
  std::vector<std::string> problems;
  bytes.emplace(spec.pieces, spec.types, spec.merges, spec.ignore_merges, problems);
  throw_if_any(problems);
  fast.emplace(spec.added_tokens);
  pretokenizer = *parse_pretokenizer(spec.pretokenizer);
  decoded = spec.pieces;
  for (const AddedToken& token : spec.added_tokens) {
    const auto id = static_cast<std::size_t>(token.id);
    decoded[id] = from_byte_alphabet(token.content);
    if (token.special) special[id] = true;
  }
}

void Tokenizer::State::check_id(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= spec.pieces.size()) {
    throw InvalidArgument("[tokenizer] no such id: expected 0.." + std::to_string(spec.pieces.size() - 1) + ", got " +
                          std::to_string(id));
  }
}

std::vector<std::int32_t> Tokenizer::State::encode_spm(std::string_view text) const {
  TokenList tokens(*this);
  if (text.empty()) return tokens.take();
  std::string prefixed(text);
  if (!spec.legacy) prefixed = std::string(kSpaceSymbol) + replace_all(text, kSpaceSymbol, " ");
  const SpmBpe::Options options = spm_options();
  for (const SlowSplitter::Part& part : slow->split(prefixed)) {
    if (part.id >= 0) {
      tokens.add(part.id);
    } else if (spec.legacy || !(part.text.starts_with(kSpaceSymbol) || part.text.starts_with(' '))) {
      tokens.add(spm->encode(part.text, options), 0);
    } else {
      const SpmIds guarded = spm->encode(unknown_text + part.text, options);
      tokens.add(guarded, guarded.ids.size() >= unknown_size ? unknown_size : 0);
    }
  }
  if (!spec.legacy) tokens.drop_lone_prefix();
  return tokens.take();
}

std::vector<std::int32_t> Tokenizer::State::encode_bytes(std::string_view text) const {
  std::vector<std::int32_t> out;
  std::vector<std::string_view> words;
  for (const FastSplitter::Part& part : fast->split(text)) {
    if (part.id >= 0) {
      out.push_back(part.id);
      continue;
    }
    words.clear();
    split_words(pretokenizer, part.text, words);
    for (const std::string_view word : words) bytes->encode_word(word, out);
  }
  return out;
}

Tokenizer::Tokenizer(TokenizerSpec spec) : state_(std::make_unique<const State>(std::move(spec))) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  const std::string valid = replace_invalid_utf8(text);
  std::vector<std::int32_t> ids = state_->spm ? state_->encode_spm(valid) : state_->encode_bytes(valid);
  if (add_special && state_->spec.add_bos) ids.insert(ids.begin(), *state_->spec.bos_id);
  if (add_special && state_->spec.add_eos) ids.push_back(*state_->spec.eos_id);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string text;
  for (const std::int32_t id : ids) detokenizer.push(id, text);
  detokenizer.flush(text);
  return text;
}

std::string_view Tokenizer::piece_bytes(std::int32_t id) const {
  state_->check_id(id);
  return state_->spec.pieces[static_cast<std::size_t>(id)];
}

bool Tokenizer::is_special(std::int32_t id) const {
  state_->check_id(id);
  return state_->special[static_cast<std::size_t>(id)];
}

std::optional<std::int32_t> Tokenizer::id_of(std::string_view piece) const {
  const auto found = state_->ids.find(piece);
  return found == state_->ids.end() ? std::nullopt : std::optional(found->second);
}

std::int32_t Tokenizer::vocab_size() const { return static_cast<std::int32_t>(state_->spec.pieces.size()); }
std::optional<std::int32_t> Tokenizer::bos_id() const { return state_->spec.bos_id; }
std::optional<std::int32_t> Tokenizer::eos_id() const { return state_->spec.eos_id; }
std::optional<std::int32_t> Tokenizer::unk_id() const { return state_->spec.unk_id; }
std::optional<std::int32_t> Tokenizer::pad_id() const { return state_->spec.pad_id; }
const TokenizerSpec& Tokenizer::spec() const { return state_->spec; }

std::vector<std::int32_t> encode_with_images(const Tokenizer& tokenizer, std::string_view prompt) {
  std::vector<std::int32_t> ids;
  std::size_t dropped = 0;  // ids lost at the head of each chunk
  for (std::size_t pos = 0, chunk = 0; pos <= prompt.size(); ++chunk) {
    const std::size_t end = std::min(prompt.find(kImageMark, pos), prompt.size());
    const std::vector<std::int32_t> part = tokenizer.encode(prompt.substr(pos, end - pos));
    if (chunk > 0) ids.push_back(kImageId);
    if (chunk == 0 && !part.empty() && tokenizer.bos_id() && part.front() == *tokenizer.bos_id()) {
      dropped = 1;
      ids.push_back(part.front());
    }
    ids.insert(ids.end(), part.begin() + static_cast<std::ptrdiff_t>(std::min(dropped, part.size())), part.end());
    if (end == prompt.size()) break;
    pos = end + kImageMark.size();
  }
  return ids;
}

}  // namespace vila
