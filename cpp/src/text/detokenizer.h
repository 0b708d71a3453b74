// Token ids to text, one id at a time: what is given out is always whole characters, and all of it together is what
// Tokenizer::decode gives for all ids.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace vila {

/// For one thread. Borrows the tokenizer. Text is held back as long as later ids can change it: bytes of an unfinished
/// character, spaces that the clean-up may drop, and with `legacy` and special tokens shown all text up to the next of
/// these.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);
  Detokenizer(Detokenizer&&) noexcept;
  Detokenizer& operator=(Detokenizer&&) noexcept;
  ~Detokenizer();

  /// The text that became complete; may be empty. Throws InvalidArgument for an id outside the vocabulary.
  std::string push(std::int32_t id);
  void push(std::int32_t id, std::string& out);
  /// The rest; bytes of an unfinished character become U+FFFD. The object is as new afterwards.
  std::string flush();
  void flush(std::string& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vila
