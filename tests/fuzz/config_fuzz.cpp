// Any text: reading it as config.json gives a configuration or throws a typed error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "io/json.h"
#include "models/config.h"
#include "vila/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    static_cast<void>(vila::ModelConfig::from_json(vila::Json::parse(text, "config.json")));
  } catch (const vila::CheckpointError&) {
  } catch (const vila::UnsupportedError&) {
  }
  return 0;
}
