#include "io/json.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "vila/error.h"

namespace vila {

using nlohmann::json;

struct Json::Document {
  json root;
};

namespace {

const json& node_of(const void* node) { return *static_cast<const json*>(node); }

// Hostile documents may nest deeply; the parser's recursion is bounded by refusing them before it starts.
constexpr int kMaxDepth = 64;

bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

std::string shorten(std::string text) {
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

Json::Json(std::shared_ptr<const Document> document, const void* node, std::string path)
    : document_(std::move(document)), node_(node), path_(std::move(path)) {}

Json Json::parse(std::string_view text, const std::string& where) {
  if (too_deep(text)) {
    throw CheckpointError("[json] " + where + ": expected at most " + std::to_string(kMaxDepth) +
                          " nested levels, got more");
  }
  auto document = std::make_shared<Document>();
  try {
    document->root = json::parse(text);
  } catch (const json::exception& error) {
    throw CheckpointError("[json] " + where + ": expected valid JSON, got: " + error.what());
  }
  const void* root = &document->root;
  return {std::move(document), root, where};
}

void Json::wrong(const char* expected) const {
  const json& node = node_of(node_);
  throw CheckpointError(
      "[config] " + path_ + ": expected " + expected + ", got " +
      (node.is_structured() ? node.type_name() : shorten(node.dump(-1, ' ', true, json::error_handler_t::replace))));
}

bool Json::has(std::string_view key) const {
  const json& node = node_of(node_);
  if (!node.is_object()) wrong("an object");
  const auto it = node.find(key);
  return it != node.end() && !it->is_null();
}

Json Json::at(std::string_view key) const {
  const json& node = node_of(node_);
  if (!node.is_object()) wrong("an object");
  const auto it = node.find(key);
  if (it == node.end()) {
    throw CheckpointError("[config] " + path_ + ": expected a key \"" + std::string(key) + "\", got none");
  }
  return {document_, &*it, path_ + "." + std::string(key)};
}

Json Json::at(std::size_t index) const {
  const json& node = node_of(node_);
  if (!node.is_array() || index >= node.size()) wrong(("an array of more than " + std::to_string(index)).c_str());
  return {document_, &node[index], path_ + "[" + std::to_string(index) + "]"};
}

std::size_t Json::size() const {
  if (!node_of(node_).is_structured()) wrong("an array or object");
  return node_of(node_).size();
}

std::vector<std::string> Json::keys() const {
  if (!node_of(node_).is_object()) wrong("an object");
  std::vector<std::string> result;
  for (const auto& item : node_of(node_).items()) result.push_back(item.key());
  return result;
}

std::string Json::text() const {
  if (!node_of(node_).is_string()) wrong("a string");
  return node_of(node_).get<std::string>();
}

std::int64_t Json::integer() const { return integer(INT64_MIN, INT64_MAX); }

std::int64_t Json::integer(std::int64_t lowest, std::int64_t highest) const {
  const json& node = node_of(node_);
  if (!node.is_number_integer() || (node.is_number_unsigned() && node.get<std::uint64_t>() > INT64_MAX)) {
    wrong("an integer");
  }
  const auto value = node.get<std::int64_t>();
  if (value < lowest || value > highest) {
    wrong(("an integer in " + std::to_string(lowest) + ".." + std::to_string(highest)).c_str());
  }
  return value;
}

double Json::number() const {
  if (!node_of(node_).is_number()) wrong("a number");
  return node_of(node_).get<double>();
}

bool Json::boolean() const {
  if (!node_of(node_).is_boolean()) wrong("true or false");
  return node_of(node_).get<bool>();
}

JsonWriter& JsonWriter::raw(std::string_view key, std::string_view value) {
  if (!body_.empty()) body_ += ", ";
  body_ += json(std::string(key)).dump() + ": ";
  body_ += value;
  return *this;
}

JsonWriter& JsonWriter::set(std::string_view key, std::string_view value) {
  return raw(key, json(std::string(value)).dump(-1, ' ', true, json::error_handler_t::replace));
}
JsonWriter& JsonWriter::set(std::string_view key, std::int64_t value) { return raw(key, std::to_string(value)); }
JsonWriter& JsonWriter::set(std::string_view key, double value) { return raw(key, json(value).dump()); }
JsonWriter& JsonWriter::set(std::string_view key, bool value) { return raw(key, value ? "true" : "false"); }
JsonWriter& JsonWriter::set(std::string_view key, const JsonWriter& object) { return raw(key, object.dump()); }

}  // namespace vila
