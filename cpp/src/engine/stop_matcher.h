// Holds streamed text back while it may be the beginning of a stop string, and ends it before the first one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vila {

class StopMatcher {
 public:
  /// Throws InvalidArgument for an empty stop string.
  explicit StopMatcher(std::vector<std::string> stops);

  /// Adds text; returns what can be shown now. After stopped() nothing more comes.
  std::string push(std::string_view text);
  /// What was held back, at the end of an answer that met no stop string.
  std::string flush();
  [[nodiscard]] bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace vila
