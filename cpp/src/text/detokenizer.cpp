#include "text/detokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer_state.h"
#include "text/unicode.h"

namespace vila {
namespace {

/// Bytes to whole characters.
class Utf8Assembler {
 public:
  /// What one U+FFFD stands for: a maximal invalid part (the tokenizers library) or a single byte (SentencePiece).
  enum class Unit : std::uint8_t { part, byte };
  explicit Utf8Assembler(Unit unit) : unit_(unit) {}

  void push(std::string_view bytes, std::string& out) {
    pending_ += bytes;
    drain(false, out);
  }
  void flush(std::string& out) { drain(true, out); }

 private:
  void drain(bool at_end, std::string& out) {
    std::size_t pos = 0;
    while (pos < pending_.size()) {
      const DecodedChar c = decode_utf8(pending_, pos);
      if (c.status == Utf8Status::incomplete && !at_end) break;
      if (c.status == Utf8Status::valid) {
        out.append(pending_, pos, c.size);
        pos += c.size;
      } else {
        out += kReplacementChar;
        pos += unit_ == Unit::part ? c.size : 1;
      }
    }
    pending_.erase(0, pos);
  }

  Unit unit_;
  std::string pending_;
};

/// str.replace on a stream: leftmost matches that do not overlap.
class Replacer {
 public:
  Replacer(std::string_view from, std::string_view to) : from_(from), to_(to) {}

  void push(std::string_view text, std::string& out) {
    for (const char c : text) {
      pending_.push_back(c);
      while (!from_.starts_with(pending_)) {
        out.push_back(pending_.front());
        pending_.erase(0, 1);
      }
      if (pending_.size() == from_.size()) {
        out += to_;
        pending_.clear();
      }
    }
  }
  void flush(std::string& out) {
    out += pending_;
    pending_.clear();
  }

 private:
  std::string_view from_, to_;
  std::string pending_;  // a proper prefix of from_
};

/// The replacements of transformers' clean_up_tokenization, one after the other.
class SpaceCleaner {
 public:
  void push(std::string text, std::string& out) { run(std::move(text), false, out); }
  void flush(std::string text, std::string& out) { run(std::move(text), true, out); }

 private:
  void run(std::string text, bool at_end, std::string& out) {
    for (Replacer& stage : stages_) {
      std::string next;
      stage.push(text, next);
      if (at_end) stage.flush(next);
      text = std::move(next);
    }
    out += text;
  }

  std::array<Replacer, 10> stages_{{{" .", "."},
                                    {" ?", "?"},
                                    {" !", "!"},
                                    {" ,", ","},
                                    {" ' ", "'"},
                                    {" n't", "n't"},
                                    {" 'm", "'m"},
                                    {" 's", "'s"},
                                    {" 've", "'ve"},
                                    {" 're", "'re"}}};
};

/// SentencePieceProcessor::Decode for one run of pieces.
class SpmRunDecoder {
 public:
  SpmRunDecoder(const SpmBpe& model, const TokenizerSpec& spec, const SpmBpe::Options& options)
      : model_(model), spec_(spec), options_(options) {}

  void push(std::string_view piece, std::int32_t id, std::string& out) {
    const std::size_t before = out.size();
    const auto type = static_cast<PieceType>(spec_.types[static_cast<std::size_t>(id)]);
    if (type == PieceType::byte) {
      const char byte = static_cast<char>(model_.byte_of(id));
      bytes_.push({&byte, 1}, out);
      has_text_ = true;
      return;
    }
    bytes_.flush(out);
    if (prefix_seen_ || has_text_) at_start_ = false;
    prefix_seen_ = false;
    push_text(piece, id, type, out);
    has_text_ = has_text_ || out.size() > before;
  }

  void flush(std::string& out) {
    bytes_.flush(out);
    at_start_ = true;
    prefix_seen_ = false;
    has_text_ = false;
  }

 private:
  void push_text(std::string_view piece, std::int32_t id, PieceType type, std::string& out) {
    if (type == PieceType::control) return;
    if (type == PieceType::unknown) {
      const bool is_itself = piece == spec_.pieces[static_cast<std::size_t>(id)];
      out += is_itself ? std::string_view(" \xe2\x81\x87 ") : piece;  // SentencePiece's sign for the unknown, U+2047
      return;
    }
    if (at_start_ && (options_.add_dummy_prefix || options_.remove_extra_whitespaces) &&
        piece.starts_with(kSpaceSymbol)) {
      piece.remove_prefix(kSpaceSymbol.size());
      prefix_seen_ = !options_.remove_extra_whitespaces;
    }
    for (std::size_t pos = 0; pos < piece.size();) {
      const std::size_t space = std::min(piece.find(kSpaceSymbol, pos), piece.size());
      out += piece.substr(pos, space - pos);
      if (space < piece.size()) out.push_back(' ');
      pos = space + kSpaceSymbol.size();
    }
  }

  const SpmBpe& model_;
  const TokenizerSpec& spec_;
  SpmBpe::Options options_;
  Utf8Assembler bytes_{Utf8Assembler::Unit::byte};
  bool at_start_ = true;      // a leading space would be the dummy prefix
  bool prefix_seen_ = false;  // the last piece lost it
  bool has_text_ = false;
};

}  // namespace

struct Detokenizer::State {
  State(const Tokenizer& tokenizer, bool skip) : model(*tokenizer.state_), skip_special(skip) {
    if (model.spec.clean_up_spaces) cleaner.emplace();
    if (model.spm) run.emplace(*model.spm, model.spec, model.spm_options());
  }

  void push(std::int32_t id, std::string& out) {
    model.check_id(id);
    const auto index = static_cast<std::size_t>(id);
    if (skip_special && model.special[index]) return;
    if (!run) {
      assembler.push(model.decoded[index], out);
    } else if (model.separate[index]) {
      end_segment(false, out);
      add_part(model.spec.pieces[index], out);
      part_open = false;
    } else {
      push_spm(id, out);
    }
  }

  void flush(std::string& out) {
    if (run) {
      end_segment(true, out);
      parts = 0;
    } else {
      assembler.flush(out);
    }
  }

  const Tokenizer::State& model;
  bool skip_special;
  std::optional<SpaceCleaner> cleaner;
  Utf8Assembler assembler{Utf8Assembler::Unit::part};

 private:
  /// Parts are joined with spaces; text goes to the open part or opens one.
  void add_part(std::string_view text, std::string& out) {
    if (text.empty()) return;
    if (!part_open) {
      if (parts > 0) out.push_back(' ');
      ++parts;
      part_open = true;
    }
    out += text;
  }

  /// transformers' convert_tokens_to_string, on a stream.
  void push_spm(std::int32_t id, std::string& out) {
    std::string_view piece = model.spec.pieces[static_cast<std::size_t>(id)];
    bool is_special = model.special[static_cast<std::size_t>(id)];
    if (count == 0 && piece.starts_with(kSpaceSymbol)) {
      piece.remove_prefix(kSpaceSymbol.size());
      is_special = model.special_contents.contains(piece);
      id = model.spm->piece_id(piece);
    }
    std::string text;
    if (is_special) {
      if (!after_special && count != 0 && model.spec.legacy) text.push_back(' ');
      text += held;
      held.clear();
      run->flush(text);
      text += piece;
    } else {
      if (after_special && count == 1 && !piece.starts_with(kSpaceSymbol)) text.push_back(' ');
      // A later special token would put a space before this text.
      run->push(piece, id, model.spec.legacy && !skip_special ? held : text);
    }
    after_special = is_special;
    ++count;
    add_part(text, out);
  }

  /// `last`: at the end of the ids a part counts even if it is empty.
  void end_segment(bool last, std::string& out) {
    std::string text = std::move(held);
    held.clear();
    run->flush(text);
    add_part(text, out);
    if (last && count > 0 && !part_open && parts > 0) out.push_back(' ');
    part_open = false;
    count = 0;
    after_special = false;
  }

  std::optional<SpmRunDecoder> run;
  std::size_t count = 0;       // tokens of the segment between two separate tokens
  bool after_special = false;  // the last of them is special
  std::string held;
  std::size_t parts = 0;
  bool part_open = false;
};

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special)
    : state_(std::make_unique<State>(tokenizer, skip_special)) {}
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;
Detokenizer& Detokenizer::operator=(Detokenizer&&) noexcept = default;
Detokenizer::~Detokenizer() = default;

void Detokenizer::push(std::int32_t id, std::string& out) {
  if (!state_->cleaner) {
    state_->push(id, out);
    return;
  }
  std::string text;
  state_->push(id, text);
  state_->cleaner->push(std::move(text), out);
}

void Detokenizer::flush(std::string& out) {
  if (!state_->cleaner) {
    state_->flush(out);
    return;
  }
  std::string text;
  state_->flush(text);
  state_->cleaner->flush(std::move(text), out);
}

std::string Detokenizer::push(std::int32_t id) {
  std::string out;
  push(id, out);
  return out;
}

std::string Detokenizer::flush() {
  std::string out;
  flush(out);
  return out;
}

}  // namespace vila
