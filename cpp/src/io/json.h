// JSON as the engine needs it: checked reading with full paths in every message, and writing of reports. The parser
// behind it is private to json.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vila {

/// A value inside a parsed document; cheap to copy, keeps the document alive. Every getter throws CheckpointError
/// "[config] <path>: expected <type>, got <what is there>".
class Json {
 public:
  /// `where` names the document in messages.
  static Json parse(std::string_view text, const std::string& where);

  [[nodiscard]] bool has(std::string_view key) const;  ///< present and not null
  [[nodiscard]] Json at(std::string_view key) const;
  [[nodiscard]] Json at(std::size_t index) const;
  [[nodiscard]] std::size_t size() const;  ///< of an array or object, else an error
  [[nodiscard]] std::vector<std::string> keys() const;

  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::int64_t integer() const;
  /// An integer within lowest..highest.
  [[nodiscard]] std::int64_t integer(std::int64_t lowest, std::int64_t highest) const;
  [[nodiscard]] double number() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  struct Document;
  Json(std::shared_ptr<const Document> document, const void* node, std::string path);
  [[noreturn]] void wrong(const char* expected) const;
  std::shared_ptr<const Document> document_;
  const void* node_;
  std::string path_;
};

/// Builds one flat or nested object in the order of its calls.
class JsonWriter {
 public:
  JsonWriter& set(std::string_view key, std::string_view value);
  JsonWriter& set(std::string_view key, const char* value) { return set(key, std::string_view(value)); }
  JsonWriter& set(std::string_view key, std::int64_t value);
  JsonWriter& set(std::string_view key, int value) { return set(key, std::int64_t{value}); }
  JsonWriter& set(std::string_view key, double value);
  JsonWriter& set(std::string_view key, bool value);
  JsonWriter& set(std::string_view key, const JsonWriter& object);
  [[nodiscard]] std::string dump() const { return "{" + body_ + "}"; }

 private:
  JsonWriter& raw(std::string_view key, std::string_view value);
  std::string body_;
};

}  // namespace vila
