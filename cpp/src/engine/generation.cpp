#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "engine/beam_search.h"
#include "engine/prompt_lookup.h"
#include "engine/state.h"

namespace vila {
namespace {

// Most rows of one prefill pass: bounds the workspace. Passes of a prompt are about equally long, because each reads
// all weights once more.
constexpr std::int64_t kChunkRows = 512;

class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& total_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

Generation::State::State(std::shared_ptr<Session::State> s, const SamplingParams& p,
                         std::vector<std::string> stop_strings)
    : session(std::move(s)),
      params(p),
      sampler(p),
      stops(std::move(stop_strings)),
      detokenizer(*session->engine->tokenizer, true),
      logits(static_cast<std::size_t>(session->engine->config.llm.vocab_size)) {
  width = static_cast<std::size_t>(p.prompt_lookup);
  const std::size_t rows = width + 1;
  step_ids.reserve(rows);
  if (rows > 1) step_logits.resize(rows * logits.size());
  session->busy = true;
}

Generation::State::~State() { session->busy = false; }

void Generation::State::encode(ExecContext& ctx, Media& item) {
  const VisionEncoder& vision = *engine().vision;
  const std::int64_t dim = engine().config.llm.dim;
  item.rows.resize(static_cast<std::size_t>(vision.n_tokens() * dim));
  const Stopwatch watch(stats.image_seconds);
  vision.encode(ctx, item.pixels, {item.rows.data(), vision.n_tokens(), dim, dim});
  item.pixels = {};
}

// The rows of positions begin .. begin + x.rows: embeddings of tokens, rows of pictures (encoded when first needed).
void Generation::State::fill_rows(ExecContext& ctx, std::int64_t begin, Rows x) {
  const std::int64_t end = begin + x.rows;
  std::int64_t at = begin;
  while (at < end) {
    std::int64_t last = at;
    while (last < end && position_ids[static_cast<std::size_t>(last)] != kImageId) ++last;
    if (last > at) {
      const std::span<const std::int32_t> ids(position_ids.data() + at, static_cast<std::size_t>(last - at));
      engine().llm->embed(ctx, ids, x.slice(at - begin, last - at));
      at = last;
      continue;
    }
    const std::int64_t n_tokens = engine().vision->n_tokens();
    const auto item = std::find_if(media.begin(), media.end(), [&](const Media& m) {
      return at >= m.first_position && at < m.first_position + n_tokens;
    });
    VILA_CHECK(item != media.end());
    if (item->rows.empty()) encode(ctx, *item);
    const std::int64_t first = at - item->first_position;
    const std::int64_t rows = std::min(n_tokens - first, end - at);
    std::memcpy(x.row(at - begin), item->rows.data() + first * x.cols,
                static_cast<std::size_t>(rows * x.cols) * sizeof(float));
    if (first + rows == n_tokens) item->rows = {};
    at += rows;
  }
}

void Generation::State::prefill(ExecContext& ctx, Rows out) {
  const auto total = static_cast<std::int64_t>(position_ids.size());
  const LlamaModel& llm = *engine().llm;
  auto at = static_cast<std::int64_t>(session->keys.size());  // start() cut the cache to the common prefix
  while (at < total) {
    const Workspace::Frame frame(ctx.workspace);
    const std::int64_t chunks = (total - at + kChunkRows - 1) / kChunkRows;
    const std::int64_t rows = (total - at + chunks - 1) / chunks;
    const std::int64_t skipped = std::clamp<std::int64_t>(total - out.rows - at, 0, rows);  // nobody wants their logits
    const Rows x = ctx.workspace.rows(rows, llm.config().dim);
    fill_rows(ctx, at, x);
    const Stopwatch watch(stats.prefill_seconds);
    llm.forward(ctx, session->cache.layers(), at, x, rows - skipped);
    session->keys.insert(session->keys.end(), keys.begin() + at, keys.begin() + at + rows);
    if (skipped < rows) {
      llm.logits(ctx, x.slice(skipped, rows - skipped), out.slice(at + skipped - (total - out.rows), rows - skipped));
    }
    at += rows;
  }
}

void Generation::State::decode(ExecContext& ctx) {
  const Stopwatch watch(stats.decode_seconds);
  const Workspace::Frame frame(ctx.workspace);
  const LlamaModel& llm = *engine().llm;
  const std::int64_t vocab = llm.config().vocab_size;
  const auto position = static_cast<std::int64_t>(session->keys.size());
  if (const std::size_t proposed = step_ids.size(); proposed > 1) {
    width = step_at + 1 == proposed ? 2 * width : std::max<std::size_t>(step_at, 1);
    width = std::min(width, static_cast<std::size_t>(params.prompt_lookup));
  }
  step_ids.assign(1, last_id);
  step_at = 0;
  if (params.prompt_lookup > 0) {
    const std::int64_t fitting =
        std::min(params.max_new_tokens - stats.completion_tokens, engine().max_context - position) - 1;
    const auto longest =
        static_cast<std::size_t>(std::clamp<std::int64_t>(fitting, 0, static_cast<std::int64_t>(width)));
    const std::span<const std::int32_t> proposed = look_up(history, longest);
    step_ids.insert(step_ids.end(), proposed.begin(), proposed.end());
    stats.proposed_tokens += static_cast<std::int64_t>(proposed.size());
  }
  const auto rows = static_cast<std::int64_t>(step_ids.size());
  const Rows x = ctx.workspace.rows(rows, llm.config().dim);
  llm.embed(ctx, step_ids, x);
  llm.forward(ctx, session->cache.layers(), position, x, rows);
  session->keys.push_back(static_cast<PositionKey>(last_id));  // the cache holds more; what is not taken is overwritten
  float* out = rows > 1 ? step_logits.data() : logits.data();
  llm.logits(ctx, x, {out, rows, vocab, vocab});
  if (rows > 1) std::copy_n(out, vocab, logits.data());
}

// Uses the next row of the last step if the token that was chosen is the one that it was computed for.
bool Generation::State::take_proposed() {
  if (step_at + 1 >= step_ids.size() || step_ids[step_at + 1] != last_id) return false;
  ++step_at;
  ++stats.accepted_tokens;
  session->keys.push_back(static_cast<PositionKey>(last_id));
  const auto vocab = static_cast<std::ptrdiff_t>(logits.size());
  std::copy_n(step_logits.begin() + static_cast<std::ptrdiff_t>(step_at) * vocab, vocab, logits.begin());
  return true;
}

void Generation::State::run_beams(ExecContext& ctx) {
  const Stopwatch watch(stats.decode_seconds);
  const auto n_prompt = static_cast<std::int64_t>(session->keys.size());
  BeamSearchOptions options;
  options.num_beams = params.num_beams;
  options.max_new_tokens = std::min<std::int64_t>(params.max_new_tokens, engine().max_context - n_prompt);
  if (!params.ignore_eos) options.end_ids = engine().end_ids;
  const BeamSearchResult best = beam_search(ctx, *engine().llm, session->cache, n_prompt, logits, options);
  // Beams share one score; every token of the answer carries the answer's mean log probability.
  for (const std::int32_t id : best.ids) beam_answer.push_back({id, static_cast<float>(best.score)});
  std::reverse(beam_answer.begin(), beam_answer.end());  // handed out from the back
}

Choice Generation::State::choose(ExecContext& ctx) {
  if (params.num_beams > 1) {
    if (stats.completion_tokens == 0) run_beams(ctx);
    const Choice choice = beam_answer.back();
    beam_answer.pop_back();
    return choice;
  }
  if (stats.completion_tokens > 0 && !take_proposed()) decode(ctx);
  return sampler.pick(logits, history, static_cast<std::uint64_t>(stats.completion_tokens));
}

TokenEvent Generation::State::emit(const Choice& choice) {
  ++stats.completion_tokens;
  last_id = choice.id;
  history.push_back(choice.id);
  const std::vector<std::int32_t>& ends = engine().end_ids;
  TokenEvent event{choice.id, {}, choice.logprob};
  FinishReason now = FinishReason::running;
  if (!params.ignore_eos && std::find(ends.begin(), ends.end(), choice.id) != ends.end()) {
    now = FinishReason::stop;
  } else {
    // The vocabulary matrix may have more rows than the tokenizer has pieces; such an id has no text.
    if (choice.id < engine().tokenizer->vocab_size()) event.text = stops.push(detokenizer.push(choice.id));
    const auto position = static_cast<std::int64_t>(position_ids.size()) + stats.completion_tokens;
    if (stops.stopped()) {
      now = FinishReason::stop;
    } else if (stats.completion_tokens == params.max_new_tokens || position >= engine().max_context ||
               (params.num_beams > 1 && beam_answer.empty())) {
      now = FinishReason::length;
    }
  }
  if (now != FinishReason::running && !stops.stopped()) {
    event.text += stops.push(detokenizer.flush());
    event.text += stops.flush();
  }
  reason = now;
  return event;
}

std::optional<TokenEvent> Generation::State::next() {
  if (reason != FinishReason::running) return std::nullopt;
  try {
    const WorkspacePool::Lease workspace = engine().workspaces.take();
    ExecContext ctx = engine().context(*workspace, &cancel);
    ctx.check_stop();
    if (!started) {
      prefill(ctx, {logits.data(), 1, engine().config.llm.vocab_size, engine().config.llm.vocab_size});
      started = true;
    }
    return emit(choose(ctx));
  } catch (const Cancelled&) {
    reason = FinishReason::cancelled;
    return std::nullopt;
  }
}

Generation::Generation(std::unique_ptr<State> state) : state_(std::move(state)) {}
Generation::Generation(Generation&&) noexcept = default;
Generation& Generation::operator=(Generation&&) noexcept = default;
Generation::~Generation() = default;

FloatArray Generation::logits_of(Generation generation) {
  State& state = *generation.state_;
  const Engine::State& engine = state.engine();
  const auto rows = static_cast<std::int64_t>(state.position_ids.size());
  const std::int64_t vocab = engine.config.llm.vocab_size;
  FloatArray result{std::vector<float>(static_cast<std::size_t>(rows * vocab)), {rows, vocab}};
  const WorkspacePool::Lease workspace = engine.workspaces.take();
  ExecContext ctx = engine.context(*workspace, &state.cancel);
  state.prefill(ctx, {result.data.data(), rows, vocab, vocab});
  return result;
}

std::optional<TokenEvent> Generation::next() { return state_->next(); }
void Generation::cancel() noexcept { state_->cancel = true; }
FinishReason Generation::finish_reason() const noexcept { return state_->reason; }
GenerationStats Generation::stats() const noexcept { return state_->stats; }

}  // namespace vila
