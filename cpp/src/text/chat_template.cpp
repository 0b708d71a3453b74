#include "text/chat_template.h"

#include <algorithm>
#include <array>

#include "vila/error.h"

namespace vila {
namespace {

constexpr std::string_view kVicunaSystem =
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.";
constexpr std::string_view kLlama3System =
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.";

constexpr ChatTemplateStrings kVicuna = {
    .name = "vicuna_v1",
    .default_system = kVicunaSystem,
    .system_prefix = "",
    .system_suffix = " ",
    .user_prefix = "USER: ",
    .user_suffix = " ",
    .generation_header = "ASSISTANT:",
    .assistant_prefix = "ASSISTANT: ",
    .assistant_suffix = "</s>",
    .final_suffix = "</s>",
    .stop = "</s>",
};

constexpr ChatTemplateStrings vicuna_without_system() {
  ChatTemplateStrings strings = kVicuna;
  strings.name = "vicuna_v1_nosys";
  strings.default_system = "";
  return strings;
}

// The answer's header says "system": so does the released code, and so the models were trained.
constexpr ChatTemplateStrings kLlama3 = {
    .name = "llama_3",
    .default_system = kLlama3System,
    .system_prefix = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
    .system_suffix = "<|end_of_text|>",
    .user_prefix = "<|start_header_id|>user<|end_header_id|>\n\n",
    .user_suffix = "<|end_of_text|>",
    .generation_header = "<|start_header_id|>system<|end_header_id|>\n\n",
    .assistant_prefix = "<|start_header_id|>system<|end_header_id|>\n\n",
    .assistant_suffix = "<|end_of_text|>",
    .final_suffix = "<|end_of_text|>",
    .stop = "<|end_of_text|>",
};

constexpr ChatTemplateStrings kLlama3Fix = {
    .name = "llama_3_fix",
    .default_system = kLlama3System,
    .system_prefix = kLlama3.system_prefix,
    .system_suffix = "<|eot_id|>",
    .user_prefix = kLlama3.user_prefix,
    .user_suffix = "<|eot_id|>",
    .generation_header = "<|start_header_id|>assistant<|end_header_id|>\n\n",
    .assistant_prefix = "<|start_header_id|>assistant<|end_header_id|>\n\n",
    .assistant_suffix = "<|eot_id|>",
    .final_suffix = "<|end_of_text|>",
    .stop = "<|eot_id|>",
};

constexpr ChatTemplateStrings kHermes2 = {
    .name = "hermes-2",
    .default_system = "Answer the questions.",
    .system_prefix = "<|im_start|>system\n",
    .system_suffix = "<|im_end|>",
    .user_prefix = "<|im_start|>user\n",
    .user_suffix = "<|im_end|>",
    .generation_header = "<|im_start|>assistant\n",
    .assistant_prefix = "<|im_start|>assistant\n",
    .assistant_suffix = "<|im_end|>",
    .final_suffix = "<|im_end|>",
    .stop = "<|im_end|>",
};

// Alignment of the projector: "<image>caption\n".
constexpr ChatTemplateStrings kPlain = {
    .name = "plain",
    .default_system = "",
    .system_prefix = "",
    .system_suffix = "",
    .user_prefix = "",
    .user_suffix = "",
    .generation_header = "",
    .assistant_prefix = "",
    .assistant_suffix = "\n",
    .final_suffix = "\n",
    .stop = "\n",
};

constexpr std::array kTemplates = {ChatTemplate(kVicuna),  ChatTemplate(vicuna_without_system()),
                                   ChatTemplate(kLlama3),  ChatTemplate(kLlama3Fix),
                                   ChatTemplate(kHermes2), ChatTemplate(kPlain)};

}  // namespace

std::vector<std::string> ChatTemplate::names() {
  std::vector<std::string> names;
  for (const ChatTemplate& known : kTemplates) names.emplace_back(known.strings_.name);
  return names;
}

const ChatTemplate& ChatTemplate::by_name(std::string_view name) {
  const std::string_view wanted = name == "v1" ? kVicuna.name : name;
  const auto found = std::find_if(kTemplates.begin(), kTemplates.end(),
                                  [wanted](const ChatTemplate& known) { return known.strings_.name == wanted; });
  if (found != kTemplates.end()) return *found;
  std::string message = "[chat template] unknown conversation mode: expected one of v1";
  for (const std::string& known : names()) message += ", " + known;
  throw UnsupportedError(message + ", got \"" + std::string(name) + "\"");
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 const std::optional<std::string>& system) const {
  std::string system_text = system.value_or(std::string(strings_.default_system));
  if (!messages.empty() && messages.front().role == "system") {
    system_text = messages.front().text;
    messages = messages.subspan(1);
  }
  if (messages.empty())
    throw InvalidArgument("[chat template] no message: expected at least one from the user, got none");
  std::string out;
  const auto add = [&out](std::string_view prefix, std::string_view text, std::string_view suffix) {
    out.append(prefix).append(text).append(suffix);
  };
  add(strings_.system_prefix, system_text, strings_.system_suffix);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const bool is_user = i % 2 == 0;
    const std::string_view expected = is_user ? "user" : "assistant";
    if (messages[i].role != expected) {
      throw InvalidArgument("[chat template] wrong order of roles: expected " + std::string(expected) +
                            " (user and assistant take turns, system only first), got \"" + messages[i].role + "\"");
    }
    const bool is_last = i + 1 == messages.size();
    if (is_user) {
      add(strings_.user_prefix, messages[i].text, strings_.user_suffix);
    } else {
      add(strings_.assistant_prefix, messages[i].text, is_last ? strings_.final_suffix : strings_.assistant_suffix);
    }
    if (is_user && is_last) out += strings_.generation_header;
  }
  return out;
}

std::string detect_conv_mode(const Tokenizer& tokenizer) {
  if (tokenizer.id_of("<|im_start|>")) return "hermes-2";
  if (tokenizer.id_of("<|start_header_id|>")) return "llama_3";
  return "vicuna_v1";
}

}  // namespace vila
