#include "engine/prompt_lookup.h"

#include <algorithm>

namespace vila {

std::span<const std::int32_t> look_up(std::span<const std::int32_t> ids, std::size_t longest) {
  for (std::size_t length = 3; length >= 2; --length) {
    if (ids.size() <= length) continue;
    const auto last = ids.last(length);
    const auto before = ids.first(ids.size() - 1);  // an occurrence must end before the last id
    const auto found = std::find_end(before.begin(), before.end(), last.begin(), last.end());
    if (found == before.end()) continue;
    const auto after = ids.subspan(static_cast<std::size_t>(found - before.begin()) + length);
    return after.first(std::min(longest, after.size()));
  }
  return {};
}

}  // namespace vila
