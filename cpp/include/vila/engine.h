// The public door of the engine: load a converted model, ask about pictures, pull tokens. No third-party type and no
// internal type passes it.
//
//   const vila::Engine engine = vila::Engine::load("vila1.5-3b-int4");
//   const vila::Image cat = vila::decode_image(bytes_of("cat.png"));
//   vila::Prompt prompt;
//   prompt.messages = {{"user", "<image>\nWhat is this?"}};
//   prompt.images = {cat.view()};
//   vila::Session session = engine.new_session();
//   vila::Generation generation = session.start(prompt, {.max_new_tokens = 64});
//   while (const auto token = generation.next()) std::cout << token->text << std::flush;
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vila/error.h"
#include "vila/image.h"

namespace vila {

class Tokenizer;

enum class MemoryMode : std::uint8_t {
  fast,    ///< weights are read into memory of the engine's own, in huge pages where the system gives them
  mapped,  ///< the file is mapped: smallest footprint, shared between processes
};
enum class KvCacheType : std::uint8_t {
  f16,
  f32,
  int8,  ///< one f32 scale per token and KV head: about half the memory of f16, a little less accurate
};
/// The type of that name: "f16", "f32" or "int8". Throws InvalidArgument.
KvCacheType kv_cache_type(std::string_view name);
/// Its name.
std::string_view name_of(KvCacheType type) noexcept;

struct EngineOptions {
  int threads = 0;       ///< 0: physical cores within the affinity mask and the cgroup quota
  std::string isa = {};  ///< name of a kernel table; empty: VILA_ISA, else the best usable one
  MemoryMode memory = MemoryMode::fast;
  KvCacheType kv_cache = KvCacheType::f16;  ///< what cached keys and values are stored as
  std::int64_t max_context = 0;             ///< tokens per session; 0: what the checkpoint says
  std::string conv_mode = {};               ///< chat template; empty: what the checkpoint says
};

/// One message of a dialogue. `role` is "system", "user" or "assistant". In a user's text "<image>" stands for the
/// next picture and "<video>" (with a newline that follows it directly) for the next video.
struct Message {
  std::string role = {};
  std::string text = {};
};

/// What is asked. Pictures and videos are taken in order of their marks. Pixels are borrowed for the call only:
/// Session::start copies what it still needs.
struct Prompt {
  std::vector<Message> messages = {};
  std::vector<ImageView> images = {};
  std::vector<std::vector<ImageView>> videos = {};  ///< frames, oldest first; each frame is shown as a picture
  std::optional<std::string> system = {};           ///< system text; default: the template's own
  /// Reads marks as the reference code does: a "<video>" without a video stays in the text.
  bool reference_compat = false;
};

struct SamplingParams {
  int max_new_tokens = 512;
  float temperature = 0.0F;         ///< 0: greedy
  float top_p = 1.0F;               ///< nucleus mass in (0, 1]
  int top_k = 0;                    ///< 0: off
  float min_p = 0.0F;               ///< drops tokens below min_p times the best probability
  float repetition_penalty = 1.0F;  ///< as in Keskar et al. 2019 (CTRL): > 1 discourages tokens seen before
  std::uint64_t seed = 0;
  std::vector<std::string> stop = {};  ///< the text ends before the first of these
  bool ignore_eos = false;
  int num_beams = 1;  ///< beam search with length-normalised scores; needs temperature 0
  /// Most ids that are proposed per step from what stands in prompt and answer, 0..15; 0: none. Speculative decoding:
  /// the tokens are the same, fewer passes over the weights give them where text repeats. Needs num_beams 1.
  int prompt_lookup = 0;
};

/// `text` holds only whole characters and is held back while a stop string may be starting, so it can be empty.
struct TokenEvent {
  std::int32_t id = 0;
  std::string text = {};
  float logprob = 0.0F;  ///< of the token under the model's unmodified distribution
};

enum class FinishReason : std::uint8_t { running, stop, length, cancelled };

struct GenerationStats {
  std::int64_t prompt_tokens = 0;  ///< pictures' tokens included
  std::int64_t image_tokens = 0;
  std::int64_t cached_tokens = 0;  ///< prompt tokens whose keys and values were already there
  std::int64_t completion_tokens = 0;
  std::int64_t proposed_tokens = 0;  ///< by prompt lookup
  std::int64_t accepted_tokens = 0;  ///< of them, those that the model chose as well
  double image_seconds = 0, prefill_seconds = 0, decode_seconds = 0;
};

/// f32 array with its shape, row-major.
struct FloatArray {
  std::vector<float> data = {};
  std::vector<std::int64_t> shape = {};
};

/// An open answer; pull one token per call. One thread at a time, except cancel(). Must not outlive its Session's
/// Engine.
class Generation {
 public:
  Generation(Generation&&) noexcept;
  Generation& operator=(Generation&&) noexcept;
  ~Generation();

  /// The next token, or nothing when the answer has ended. The first call encodes pictures and runs the prompt.
  std::optional<TokenEvent> next();
  /// From any thread; honoured at the next layer or token.
  void cancel() noexcept;
  [[nodiscard]] FinishReason finish_reason() const noexcept;
  [[nodiscard]] GenerationStats stats() const noexcept;

  struct State;  ///< incomplete outside the library

 private:
  friend class Session;
  friend class Engine;
  static FloatArray logits_of(Generation generation);
  explicit Generation(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// One conversation: its KV cache is kept, and the longest common prefix with the next prompt, pictures included, is
/// not computed again. One thread at a time.
class Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  /// Checks the prompt and the parameters, computes nothing yet. A Generation that is still open on this session is an
  /// InvalidArgument. Throws CapacityError when the prompt does not fit the context.
  Generation start(const Prompt& prompt, const SamplingParams& params = {});
  void reset();
  [[nodiscard]] std::int64_t position() const noexcept;     ///< tokens in the cache
  [[nodiscard]] std::int64_t cache_bytes() const noexcept;  ///< memory of the cache

  struct State;  ///< incomplete outside the library

 private:
  friend class Engine;
  friend class Generation;
  explicit Session(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;  // shared with the open Generation, which may outlive the Session object
};

/// A loaded model. Immutable; const methods are thread-safe (computations of several threads take turns).
class Engine {
 public:
  static Engine load(const std::filesystem::path& folder, const EngineOptions& options = {});
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  [[nodiscard]] Session new_session() const;

  [[nodiscard]] FloatArray preprocess(ImageView image) const;       ///< [1, 3, S, S]
  [[nodiscard]] FloatArray vision_features(ImageView image) const;  ///< [P, Cv]
  [[nodiscard]] FloatArray encode_image(ImageView image) const;     ///< [tokens, C]
  /// The rendered prompt; "<image>" stands for each picture or frame. Only the numbers of pictures and frames count.
  [[nodiscard]] std::string prompt_text(const Prompt& prompt) const;
  /// Token ids, -200 for each picture or frame.
  [[nodiscard]] std::vector<std::int32_t> prompt_ids(const Prompt& prompt) const;
  [[nodiscard]] FloatArray logits(const Prompt& prompt) const;  ///< [T, V], every prompt position

  /// Token ids of plain text; `add_special` puts the begin token in front where the model uses one.
  [[nodiscard]] std::vector<std::int32_t> encode_text(std::string_view text, bool add_special = true) const;
  /// Text of token ids; unknown ids are an InvalidArgument.
  [[nodiscard]] std::string decode_text(std::span<const std::int32_t> ids, bool skip_special = true) const;
  /// For doors that bind the tokenizer itself; the class is not part of this interface.
  [[nodiscard]] const Tokenizer& tokenizer() const noexcept;
  [[nodiscard]] std::string info_json() const;  ///< architecture, formats, bytes, isa, threads, memory, load seconds

  struct State;  ///< incomplete outside the library

 private:
  explicit Engine(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;  // sessions keep the weights alive
};

/// Puts "<image>\n" per picture and "<video>\n" per video in front of a message that has no such mark.
std::string tag_media(std::string_view text, std::size_t n_images, std::size_t n_videos);

/// Kernel tables of this build, best first, and whether this machine can run each.
struct KernelInfo {
  std::string name = {};
  bool usable = false;
};
std::vector<KernelInfo> kernel_list();
/// The table new engines use; honours VILA_ISA. Throws UnsupportedError.
std::string chosen_kernels();
/// What the machine can do at best with one instruction set and a number of threads, measured on the spot (about a
/// second).
struct MachineLimits {
  double read_bytes_per_second = 0;  ///< sequential reads of 256 MiB on huge pages where the system gives them
  double dot_macs_per_second = 0;    ///< integer dot products of nibbles and int8, on registers alone
  double fma_macs_per_second = 0;    ///< f32 fused multiply-adds, on registers alone
  std::int64_t huge_page_bytes = 0;  ///< of the process while it was measured
};
/// threads 0 and an empty isa choose as EngineOptions do. Throws UnsupportedError, InvalidArgument.
MachineLimits measure_limits(int threads = 0, const std::string& isa = {});
/// Physical cores within the affinity mask and the cgroup quota, at least 1.
int default_threads();

}  // namespace vila
