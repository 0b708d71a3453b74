// Dialogues to prompts: the conversation templates of VILA 1.5 as data (strings around each role's text). Knows nothing
// of pictures beyond the "<image>" marks that texts carry.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace vila {

struct ChatMessage {
  std::string role;  ///< "system" (first only), "user" or "assistant", the last two in turn
  std::string text;
};

/// What stands around the texts of a dialogue.
struct ChatTemplateStrings {
  std::string_view name;
  std::string_view default_system;
  std::string_view system_prefix, system_suffix;
  std::string_view user_prefix, user_suffix;
  std::string_view generation_header;  ///< where the answer begins
  std::string_view assistant_prefix, assistant_suffix;
  std::string_view final_suffix;  ///< after an answer that ends the dialogue
  std::string_view stop;          ///< ends an answer
};

/// Immutable; the known templates live as long as the program.
class ChatTemplate {
 public:
  /// Throws UnsupportedError listing the known names.
  [[nodiscard]] static const ChatTemplate& by_name(std::string_view name);
  /// Names, "v1" (the same as "vicuna_v1") left out.
  [[nodiscard]] static std::vector<std::string> names();

  explicit constexpr ChatTemplate(const ChatTemplateStrings& strings) : strings_(strings) {}

  /// The prompt; after a user's message it ends with the header of the answer. A leading system message overrides
  /// `system`, which overrides the template's own. Throws InvalidArgument for a wrong order of roles or no message.
  [[nodiscard]] std::string render(std::span<const ChatMessage> messages,
                                   const std::optional<std::string>& system = {}) const;
  [[nodiscard]] std::string stop_string() const { return std::string(strings_.stop); }
  [[nodiscard]] const ChatTemplateStrings& strings() const { return strings_; }

 private:
  ChatTemplateStrings strings_;
};

/// The template that the tokenizer's tokens speak for: "hermes-2", "llama_3" or "vicuna_v1". Tokens cannot tell
/// "llama_3" from "llama_3_fix".
[[nodiscard]] std::string detect_conv_mode(const Tokenizer& tokenizer);

}  // namespace vila
