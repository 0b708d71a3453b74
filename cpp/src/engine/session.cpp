#include <algorithm>
#include <utility>

#include "engine/state.h"

namespace vila {
namespace {

constexpr PositionKey kPictureBit = PositionKey{1} << 63;

PositionKey picture_row_key(std::uint64_t hash, std::int64_t row) {
  std::uint64_t z = hash + static_cast<std::uint64_t>(row) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 31)) * 0xbf58476d1ce4e5b9ULL;
  return (z ^ (z >> 29)) | kPictureBit;
}

}  // namespace

Session::Session(std::shared_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

std::int64_t Session::position() const noexcept { return static_cast<std::int64_t>(state_->keys.size()); }
std::int64_t Session::cache_bytes() const noexcept { return state_->cache.bytes(position()); }

void Session::reset() {
  if (state_->busy) throw InvalidArgument("[session] reset: expected no open generation, got one; close it first");
  state_->keys.clear();
  state_->cache.release();
}

Generation Session::start(const Prompt& prompt, const SamplingParams& params) {
  Session::State& session = *state_;
  const Engine::State& engine = *session.engine;
  if (session.busy) {
    throw InvalidArgument("[session] start: expected no open generation on this session, got one; close it first");
  }
  const Sampler checked(params);
  const ResolvedPrompt resolved = resolve_prompt(prompt, *engine.tokenizer, engine.conv_mode);

  std::vector<std::string> stops = params.stop;
  if (!params.ignore_eos && !engine.stop_text.empty()) stops.push_back(engine.stop_text);
  auto generation = std::make_unique<Generation::State>(state_, params, std::move(stops));
  const std::int64_t n_tokens = engine.vision->n_tokens();
  std::vector<std::uint64_t> hashes;
  for (const std::int32_t id : resolved.ids) {
    if (id != kImageId) {
      generation->position_ids.push_back(id);
      generation->keys.push_back(static_cast<PositionKey>(id));
      generation->history.push_back(id);
      continue;
    }
    hashes.push_back(hash_image(resolved.media[hashes.size()]));
    generation->media.push_back({static_cast<std::int64_t>(generation->keys.size()), {}, {}});
    for (std::int64_t row = 0; row < n_tokens; ++row) {
      generation->position_ids.push_back(kImageId);
      generation->keys.push_back(picture_row_key(hashes.back(), row));
    }
  }
  const auto total = static_cast<std::int64_t>(generation->keys.size());
  generation->history.reserve(generation->history.size() + static_cast<std::size_t>(params.max_new_tokens));
  session.keys.reserve(static_cast<std::size_t>(engine.max_context));  // a decode step allocates nothing
  if (total == 0) throw InvalidArgument("[prompt] expected at least 1 token, got an empty prompt");
  if (total >= engine.max_context) {
    const std::string pictures =
        hashes.empty() ? ""
                       : ", of them " + std::to_string(hashes.size() * static_cast<std::size_t>(n_tokens)) + " for " +
                             std::to_string(hashes.size()) + " pictures";
    throw CapacityError("[prompt] too long for the context: expected at most " +
                            std::to_string(engine.max_context - 1) + " tokens, got " + std::to_string(total) + pictures,
                        total + 1, engine.max_context);
  }

  // The longest common prefix stays; at least the last position is computed anew, because its logits are needed.
  const auto shared =
      std::mismatch(session.keys.begin(), session.keys.end(), generation->keys.begin(), generation->keys.end() - 1);
  session.keys.erase(shared.first, session.keys.end());
  const auto cached = static_cast<std::int64_t>(session.keys.size());
  for (std::size_t i = 0; i < generation->media.size(); ++i) {
    Generation::State::Media& item = generation->media[i];
    if (item.first_position + n_tokens > cached) item.pixels = engine.vision->preprocess(resolved.media[i]);
  }
  generation->stats.prompt_tokens = total;
  generation->stats.image_tokens = static_cast<std::int64_t>(hashes.size()) * n_tokens;
  generation->stats.cached_tokens = cached;
  return Generation(std::move(generation));
}

}  // namespace vila
