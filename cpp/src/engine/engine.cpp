#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/state.h"
#include "engine/tokenizer_loader.h"
#include "kernels/dispatch.h"
#include "text/chat_template.h"
#include "threading/topology.h"

namespace vila {
namespace {

constexpr int kMaxThreads = 1024;

// Ids that end an answer: the checkpoint's, and the template's stop string where it is one token.
std::vector<std::int32_t> end_ids_of(const ModelConfig& config, const Tokenizer& tokenizer,
                                     const std::string& stop_text) {
  std::vector<std::int32_t> ids = config.llm.eos_token_ids;
  if (!stop_text.empty()) {
    if (const auto id = tokenizer.id_of(stop_text)) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

kernels::KvType stored_as(KvCacheType type) {
  switch (type) {
    case KvCacheType::f16:
      return kernels::KvType::f16;
    case KvCacheType::f32:
      return kernels::KvType::f32;
    case KvCacheType::int8:
      return kernels::KvType::int8;
  }
  throw InvalidArgument("[load] kv_cache: expected f16, f32 or int8, got " + std::to_string(static_cast<int>(type)));
}

}  // namespace

KvCacheType kv_cache_type(std::string_view name) {
  for (const KvCacheType type : {KvCacheType::f16, KvCacheType::f32, KvCacheType::int8}) {
    if (name == name_of(type)) return type;
  }
  throw InvalidArgument("[load] kv_cache: expected \"f16\", \"f32\" or \"int8\", got \"" + std::string(name) + "\"");
}

std::string_view name_of(KvCacheType type) noexcept {
  switch (type) {
    case KvCacheType::f16:
      return "f16";
    case KvCacheType::f32:
      return "f32";
    case KvCacheType::int8:
      return "int8";
  }
  return "unknown";
}

Engine::Engine(std::shared_ptr<const State> state) : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::filesystem::path& folder, const EngineOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.threads < 0 || options.threads > kMaxThreads) {
    throw InvalidArgument("[load] threads: expected 0 (choose) to " + std::to_string(kMaxThreads) + ", got " +
                          std::to_string(options.threads));
  }
  auto state = std::make_shared<State>();
  state->options = options;
  state->kv_type = stored_as(options.kv_cache);
  state->kernels = options.isa.empty() ? &kernels::default_kernels() : &kernels::kernels_by_name(options.isa);
  state->pool = std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : usable_cores());
  state->checkpoint = std::make_unique<Checkpoint>(
      folder, options.memory == MemoryMode::fast ? Checkpoint::Memory::fast : Checkpoint::Memory::mapped, *state->pool);
  state->config = ModelConfig::from_json(state->checkpoint->config());
  state->conv_mode = options.conv_mode.empty() ? state->config.conv_mode : options.conv_mode;
  state->stop_text = ChatTemplate::by_name(state->conv_mode).stop_string();
  state->max_context = state->config.llm.max_context;
  if (options.max_context < 0 || options.max_context > state->max_context) {
    throw InvalidArgument("[load] max_context: expected 0 (the checkpoint's) to " + std::to_string(state->max_context) +
                          ", got " + std::to_string(options.max_context));
  }
  if (options.max_context > 0) state->max_context = options.max_context;

  state->tokenizer = std::make_unique<Tokenizer>(load_tokenizer(*state->checkpoint));
  if (static_cast<std::int64_t>(state->tokenizer->vocab_size()) > state->config.llm.vocab_size) {
    throw CheckpointError("[load] tokenizer: expected at most " + std::to_string(state->config.llm.vocab_size) +
                          " pieces (llm.vocab_size), got " + std::to_string(state->tokenizer->vocab_size()));
  }
  state->end_ids = end_ids_of(state->config, *state->tokenizer, state->stop_text);
  const WeightScope root = state->checkpoint->root();
  state->vision = std::make_unique<VisionEncoder>(state->config, root);
  state->llm = std::make_unique<LlamaModel>(state->config.llm, root.sub("llm"));
  state->checkpoint->finish();
  state->load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return Engine(std::move(state));
}

Session Engine::new_session() const {
  KvCache cache(state_->config.llm, state_->max_context, state_->kv_type);
  return Session(std::make_shared<Session::State>(state_, std::move(cache)));
}

FloatArray Engine::preprocess(ImageView image) const {
  const std::int64_t size = state_->vision->image_size();
  return {state_->vision->preprocess(image), {1, 3, size, size}};
}

FloatArray Engine::vision_features(ImageView image) const {
  const VisionEncoder& vision = *state_->vision;
  const std::vector<float> pixels = vision.preprocess(image);
  const std::int64_t rows = vision.n_features();
  const std::int64_t cols = vision.feature_dim();
  FloatArray result{std::vector<float>(static_cast<std::size_t>(rows * cols)), {rows, cols}};
  const WorkspacePool::Lease workspace = state_->workspaces.take();
  ExecContext ctx = state_->context(*workspace);
  vision.features(ctx, pixels, {result.data.data(), rows, cols, cols});
  return result;
}

FloatArray Engine::encode_image(ImageView image) const {
  const VisionEncoder& vision = *state_->vision;
  const std::vector<float> pixels = vision.preprocess(image);
  const std::int64_t rows = vision.n_tokens();
  const std::int64_t cols = state_->config.llm.dim;
  FloatArray result{std::vector<float>(static_cast<std::size_t>(rows * cols)), {rows, cols}};
  const WorkspacePool::Lease workspace = state_->workspaces.take();
  ExecContext ctx = state_->context(*workspace);
  vision.encode(ctx, pixels, {result.data.data(), rows, cols, cols});
  return result;
}

std::string Engine::prompt_text(const Prompt& prompt) const {
  return resolve_prompt(prompt, *state_->tokenizer, state_->conv_mode).text;
}

std::vector<std::int32_t> Engine::prompt_ids(const Prompt& prompt) const {
  return resolve_prompt(prompt, *state_->tokenizer, state_->conv_mode).ids;
}

FloatArray Engine::logits(const Prompt& prompt) const {
  Session session = new_session();
  return Generation::logits_of(session.start(prompt));
}

std::vector<std::int32_t> Engine::encode_text(std::string_view text, bool add_special) const {
  return state_->tokenizer->encode(text, add_special);
}

std::string Engine::decode_text(std::span<const std::int32_t> ids, bool skip_special) const {
  return state_->tokenizer->decode(ids, skip_special);
}

const Tokenizer& Engine::tokenizer() const noexcept { return *state_->tokenizer; }

std::vector<KernelInfo> kernel_list() {
  std::vector<KernelInfo> list;
  for (const kernels::KernelTable* table : kernels::compiled_kernels()) {
    list.push_back({table->name, kernels::supported_here(*table)});
  }
  return list;
}

std::string chosen_kernels() { return kernels::default_kernels().name; }
int default_threads() { return usable_cores(); }

}  // namespace vila
