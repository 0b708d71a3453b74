// Prompt lookup: what followed the same words before is proposed as what follows now, so that one pass over the weights
// can give several tokens (speculative decoding without a second model; Yang et al., arXiv:2304.04487).
#pragma once

#include <cstdint>
#include <span>

namespace vila {

/// The ids that followed the latest earlier occurrence of the last three ids, or else of the last two; at most
/// `longest` of them, empty where there is none. The result is a part of `ids`.
std::span<const std::int32_t> look_up(std::span<const std::int32_t> ids, std::size_t longest);

}  // namespace vila
