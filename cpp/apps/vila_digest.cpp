// Prints hashes of every number on the way from pictures to tokens, for a script of models and cases, so that two
// machines or instruction sets can be compared bit for bit by comparing text. It needs neither Python nor an image
// library.
//
// The script has one instruction a line; "\n" and "\\" in texts stand for a newline and a backslash:
//   model FOLDER CONV_MODE f16|f32       loads a model; the last word is the type of the KV cache
//   case NAME                            begins a case
//   message ROLE TEXT                    adds a message to its prompt
//   image FILE                           adds a PPM picture to its prompt
//   run TOKENS                           runs it, with TOKENS greedy tokens
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "vila/vila.h"

namespace {

// FNV-1a over the bytes of an array, as 16 hexadecimal digits.
template <class T>
std::string digest(const std::vector<T>& values) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::byte byte : std::as_bytes(std::span(values))) {
    hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3ULL;
  }
  std::ostringstream text;
  text << std::hex << hash;
  return std::string(16 - text.str().size(), '0') + text.str();
}

std::string unescape(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      plain += text[i];
    } else {
      plain += text[++i] == 'n' ? '\n' : text[i];
    }
  }
  return plain;
}

vila::Image read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw vila::IoError("[open] cannot open " + path);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  return vila::decode_image(std::as_bytes(std::span(bytes)));
}

struct Case {
  std::string name;
  std::vector<vila::Message> messages;
  std::vector<vila::Image> images;
};

void run(const vila::Engine& engine, const Case& c, int tokens) {
  vila::Prompt prompt;
  prompt.messages = c.messages;
  prompt.reference_compat = true;
  for (const vila::Image& image : c.images) prompt.images.push_back(image.view());
  for (const vila::ImageView& image : prompt.images) {
    std::cout << c.name << " pixels " << digest(engine.preprocess(image).data) << " features "
              << digest(engine.vision_features(image).data) << " rows " << digest(engine.encode_image(image).data)
              << "\n";
  }
  std::cout << c.name << " prompt " << digest(engine.prompt_ids(prompt)) << " logits "
            << digest(engine.logits(prompt).data) << "\n";
  vila::Session session = engine.new_session();
  vila::SamplingParams sampling;
  sampling.max_new_tokens = tokens;
  sampling.ignore_eos = true;
  vila::Generation generation = session.start(prompt, sampling);
  std::vector<float> log_probabilities;
  std::cout << c.name << " ids";
  while (const auto token = generation.next()) {
    std::cout << " " << token->id;
    log_probabilities.push_back(token->logprob);
  }
  std::cout << " logprobs " << digest(log_probabilities) << std::endl;
}

void interpret(std::istream& script, int threads) {
  std::optional<vila::Engine> engine;
  Case c;
  for (std::string line; std::getline(script, line);) {
    std::istringstream words(line);
    std::string verb;
    std::string first;
    words >> verb >> first;
    if (verb == "model") {
      std::string conv_mode;
      std::string kv_cache;
      words >> conv_mode >> kv_cache;
      vila::EngineOptions options;
      options.threads = threads;
      options.conv_mode = conv_mode;
      if (!kv_cache.empty()) options.kv_cache = vila::kv_cache_type(kv_cache);
      engine = vila::Engine::load(first, options);
      std::cout << line.substr(line.find_last_of('/') + 1) << "\n";
    } else if (verb == "case") {
      c = {first, {}, {}};
    } else if (verb == "message") {
      const std::size_t text = verb.size() + 1 + first.size() + 1;
      c.messages.push_back({first, unescape(line.size() > text ? line.substr(text) : "")});
    } else if (verb == "image") {
      c.images.push_back(read_image(first));
    } else if (verb == "run" && engine) {
      run(*engine, c, std::stoi(first));
    } else {
      throw std::runtime_error("expected model, case, message, image or run, got \"" + line + "\"");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) {
      std::cerr << "usage: vila-digest SCRIPT THREADS\n";
      return 2;
    }
    std::ifstream script(argv[1]);
    if (!script) throw vila::IoError(std::string("[open] cannot open ") + argv[1]);
    interpret(script, std::stoi(argv[2]));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
