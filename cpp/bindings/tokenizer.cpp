// Tokenizer, Detokenizer and the chat templates for Python.
#include "text/tokenizer.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "vila/error.h"

namespace vila::bindings {

namespace py = pybind11;

namespace {

/// Casts an entry of a dict if it is there; a wrong type is an InvalidArgument that names the key.
template <class T>
void read(const py::dict& dict, const char* key, T& target) {
  if (!dict.contains(key)) return;
  const py::object value = dict[key];
  try {
    target = value.cast<T>();
  } catch (const py::cast_error&) {
    throw InvalidArgument(std::string("[tokenizer] key \"") + key + "\" has the wrong type: got " +
                          py::str(py::type::of(value)).cast<std::string>());
  }
}

AddedToken added_token_from(const py::dict& dict) {
  AddedToken token;
  read(dict, "id", token.id);
  read(dict, "content", token.content);
  read(dict, "special", token.special);
  read(dict, "lstrip", token.lstrip);
  read(dict, "rstrip", token.rstrip);
  read(dict, "single_word", token.single_word);
  read(dict, "normalized", token.normalized);
  return token;
}

TokenizerSpec spec_from(const py::dict& dict) {
  TokenizerSpec spec;
  std::string kind;
  read(dict, "kind", kind);
  if (kind != "spm_bpe" && kind != "byte_bpe") {
    throw InvalidArgument("[tokenizer] unknown kind: expected \"spm_bpe\" or \"byte_bpe\", got \"" + kind + "\"");
  }
  spec.kind = kind == "spm_bpe" ? TokenizerSpec::Kind::spm_bpe : TokenizerSpec::Kind::byte_bpe;
  read(dict, "pieces", spec.pieces);
  read(dict, "scores", spec.scores);
  read(dict, "types", spec.types);
  read(dict, "merges", spec.merges);
  read(dict, "pretokenizer", spec.pretokenizer);
  read(dict, "ignore_merges", spec.ignore_merges);
  read(dict, "add_bos", spec.add_bos);
  read(dict, "add_eos", spec.add_eos);
  read(dict, "legacy", spec.legacy);
  read(dict, "add_dummy_prefix", spec.add_dummy_prefix);
  read(dict, "remove_extra_whitespaces", spec.remove_extra_whitespaces);
  read(dict, "clean_up_spaces", spec.clean_up_spaces);
  read(dict, "bos_id", spec.bos_id);
  read(dict, "eos_id", spec.eos_id);
  read(dict, "unk_id", spec.unk_id);
  read(dict, "pad_id", spec.pad_id);
  read(dict, "special_tokens", spec.special_tokens);
  std::vector<py::dict> added_tokens;
  read(dict, "added_tokens", added_tokens);
  for (const py::dict& token : added_tokens) spec.added_tokens.push_back(added_token_from(token));
  return spec;
}

std::string render_chat(const std::string& mode, const std::vector<std::pair<std::string, std::string>>& messages,
                        const std::optional<std::string>& system) {
  std::vector<ChatMessage> list;
  list.reserve(messages.size());
  for (const auto& [role, text] : messages) list.push_back({role, text});
  return ChatTemplate::by_name(mode).render(list, system);
}

}  // namespace

void bind_tokenizer(py::module_& m) {
  py::class_<Tokenizer>(m, "Tokenizer")
      .def_static(
          "from_spec", [](const py::dict& spec) { return Tokenizer(spec_from(spec)); }, py::arg("spec"),
          "Builds a tokenizer from the dictionary that convert.tokenizers.read_tokenizer returns.\n\n"
          "Raises InvalidArgument for values of the wrong type, CheckpointError for what is inconsistent.")
      .def(
          "encode",
          [](const Tokenizer& self, const std::string& text, bool add_special) {
            const py::gil_scoped_release release;
            return self.encode(text, add_special);
          },
          py::arg("text"), py::kw_only(), py::arg("add_special") = true,
          "Ids of a text. Bytes that are no UTF-8 are read as U+FFFD.")
      .def(
          "decode",
          [](const Tokenizer& self, const std::vector<std::int32_t>& ids, bool skip_special) {
            const py::gil_scoped_release release;
            return self.decode(ids, skip_special);
          },
          py::arg("ids"), py::kw_only(), py::arg("skip_special") = true,
          "Text of ids. Raises InvalidArgument for ids outside the vocabulary.")
      .def(
          "piece", [](const Tokenizer& self, std::int32_t id) { return py::bytes(std::string(self.piece_bytes(id))); },
          py::arg("id"), "Bytes of one piece.")
      .def("is_special", &Tokenizer::is_special, py::arg("id"), "Whether decoding leaves the id out.")
      .def(
          "id_of", [](const Tokenizer& self, const std::string& piece) { return self.id_of(piece); }, py::arg("piece"),
          "Id of an added token or a piece, or None.")
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size)
      .def_property_readonly("bos_id", &Tokenizer::bos_id)
      .def_property_readonly("eos_id", &Tokenizer::eos_id);

  py::class_<Detokenizer>(m, "Detokenizer", "Ids to text one by one; what it gives is always whole characters.")
      .def(py::init<const Tokenizer&, bool>(), py::arg("tokenizer"), py::arg("skip_special") = true,
           py::keep_alive<1, 2>())
      .def("push", py::overload_cast<std::int32_t>(&Detokenizer::push), py::arg("id"), "The text that became complete.")
      .def("flush", py::overload_cast<>(&Detokenizer::flush), "The rest; unfinished characters become U+FFFD.");

  m.def(
      "encode_with_images",
      [](const Tokenizer& tokenizer, const std::string& prompt) {
        const py::gil_scoped_release release;
        return encode_with_images(tokenizer, prompt);
      },
      py::arg("tokenizer"), py::arg("prompt"), "Ids of a prompt with <image> marks; -200 stands for a picture.");
  m.def("render_chat", &render_chat, py::arg("mode"), py::arg("messages"), py::arg("system") = py::none(),
        "The prompt for (role, text) messages in a conversation mode.");
  m.def("detect_conv_mode", &detect_conv_mode, py::arg("tokenizer"),
        "The conversation mode that the tokenizer's tokens speak for.");
}

}  // namespace vila::bindings
