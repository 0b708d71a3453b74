// Asks a converted model about pictures from the shell, without Python.
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "vila/vila.h"

namespace {

constexpr const char* kUsage =
    "usage: vila-run MODEL --query TEXT [--image FILE]... [--max-new-tokens N] [--isa NAME] [--threads N]\n"
    "                [--kv-cache f16|f32|int8] [--ignore-eos]\n"
    "  \"<image>\" in TEXT stands for the next picture (PPM; PNG and JPEG where this build has them).\n"
    "  example: vila-run vila1.5-3b-int4 --query '<image>\\nWhat is this?' --image cat.png\n";

struct Arguments {
  std::string model, query;
  std::vector<std::string> images;
  vila::EngineOptions engine;
  vila::SamplingParams sampling;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A backslash-n typed in a shell means a newline.
std::string unescape(std::string text) {
  for (std::size_t at = text.find("\\n"); at != std::string::npos; at = text.find("\\n", at + 1))
    text.replace(at, 2, 1, '\n');
  return text;
}

int whole_number(const std::string& text) {
  std::size_t used = 0;
  int value = 0;
  try {
    value = std::stoi(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != text.size() || text.empty()) throw UsageError("expected a whole number, got " + text);
  return value;
}

Arguments parse(const std::vector<std::string>& words) {
  Arguments arguments;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const auto value = [&]() -> const std::string& {
      if (i + 1 == words.size()) throw UsageError(word + ": expected a value, got none");
      return words[++i];
    };
    if (word == "--query")
      arguments.query = unescape(value());
    else if (word == "--image")
      arguments.images.push_back(value());
    else if (word == "--max-new-tokens")
      arguments.sampling.max_new_tokens = whole_number(value());
    else if (word == "--isa")
      arguments.engine.isa = value();
    else if (word == "--threads")
      arguments.engine.threads = whole_number(value());
    else if (word == "--kv-cache")
      arguments.engine.kv_cache = vila::kv_cache_type(value());
    else if (word == "--ignore-eos")
      arguments.sampling.ignore_eos = true;
    else if (word.starts_with("--"))
      throw UsageError("unknown option " + word);
    else if (arguments.model.empty())
      arguments.model = word;
    else
      throw UsageError("expected one MODEL, got also " + word);
  }
  if (arguments.model.empty() || arguments.query.empty()) throw UsageError("expected MODEL and --query");
  return arguments;
}

vila::Image read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw vila::IoError("[open] cannot open " + path);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  return vila::decode_image(std::as_bytes(std::span(bytes)));
}

void answer(const vila::Engine& engine, const vila::Prompt& prompt, const vila::SamplingParams& sampling) {
  vila::Session session = engine.new_session();
  vila::Generation generation = session.start(prompt, sampling);
  while (const auto token = generation.next()) std::cout << token->text << std::flush;
  std::cout << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse({argv + 1, argv + argc});
    std::vector<vila::Image> images;
    vila::Prompt prompt;
    prompt.messages = {{"user", arguments.query}};
    for (const std::string& path : arguments.images) images.push_back(read_image(path));
    for (const vila::Image& image : images) prompt.images.push_back(image.view());
    const vila::Engine engine = vila::Engine::load(arguments.model, arguments.engine);
    answer(engine, prompt, arguments.sampling);
    return 0;
  } catch (const UsageError& error) {
    std::cerr << "error: " << error.what() << "\n" << kUsage;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
