// The private state behind Engine, Session and Generation.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/prompt.h"
#include "engine/sampler.h"
#include "engine/stop_matcher.h"
#include "io/checkpoint.h"
#include "models/llama.h"
#include "models/vision_encoder.h"
#include "tensor/workspace_pool.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "vila/engine.h"

namespace vila {

struct Engine::State {
  EngineOptions options;
  const kernels::KernelTable* kernels = nullptr;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Checkpoint> checkpoint;
  ModelConfig config;
  std::string conv_mode;
  std::int64_t max_context = 0;
  kernels::KvType kv_type = kernels::KvType::f16;
  std::vector<std::int32_t> end_ids;  // end-of-sequence ids and the template's stop token
  std::string stop_text;              // the template's stop string
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<VisionEncoder> vision;
  std::unique_ptr<LlamaModel> llm;
  double load_seconds = 0;
  mutable WorkspacePool workspaces;

  [[nodiscard]] ExecContext context(Workspace& workspace, const std::atomic<bool>* stop = nullptr) const {
    return {*kernels, *pool, workspace, stop};
  }
};

/// What stands at one position: a token id, or a row of a picture. Equal keys mean equal keys and values in the cache,
/// given that everything before is equal.
using PositionKey = std::uint64_t;

struct Session::State {
  std::shared_ptr<const Engine::State> engine;
  KvCache cache;
  std::vector<PositionKey> keys;  // of the positions in the cache
  bool busy = false;              // a Generation is open

  State(std::shared_ptr<const Engine::State> e, KvCache c) : engine(std::move(e)), cache(std::move(c)) {}
};

struct Generation::State {
  struct Media {
    std::int64_t first_position = 0;
    std::vector<float> pixels;  // [3, S, S]; empty when the cache covers the picture
    std::vector<float> rows;    // [n_tokens, C] once encoded, until its last row was used
  };

  std::shared_ptr<Session::State> session;
  SamplingParams params;
  std::vector<std::int32_t> position_ids;  // id per position; kImageId for picture rows
  std::vector<PositionKey> keys;           // per position of the prompt
  std::vector<Media> media;
  std::vector<std::int32_t> history;  // text ids of prompt and answer, for the repetition penalty
  Sampler sampler;
  StopMatcher stops;
  Detokenizer detokenizer;
  std::vector<float> logits;           // [V]
  std::vector<std::int32_t> step_ids;  // what the last step ran: the chosen token, then the proposed ones
  std::vector<float> step_logits;      // [step_ids, V]
  std::size_t width = 0;               // most tokens to propose next: doubles when all were taken, else falls to those
  std::size_t step_at = 0;             // the row of step_logits that is in use
  std::vector<Choice> beam_answer;     // num_beams > 1: what is left to hand out, in order
  bool started = false;
  std::int32_t last_id = 0;
  std::atomic<bool> cancel{false};
  std::atomic<FinishReason> reason{FinishReason::running};
  GenerationStats stats;

  State(std::shared_ptr<Session::State> s, const SamplingParams& p, std::vector<std::string> stop_strings);
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::optional<TokenEvent> next();
  [[nodiscard]] const Engine::State& engine() const { return *session->engine; }
  /// Runs the prompt; `out` [R, V] receives the logits of its last R positions.
  void prefill(ExecContext& ctx, Rows out);

 private:
  void fill_rows(ExecContext& ctx, std::int64_t begin, Rows x);
  void encode(ExecContext& ctx, Media& item);
  void decode(ExecContext& ctx);
  bool take_proposed();
  void run_beams(ExecContext& ctx);
  Choice choose(ExecContext& ctx);
  TokenEvent emit(const Choice& choice);
};

}  // namespace vila
