// Sessions and generations.
#include <chrono>
#include <future>
#include <mutex>

#include "convert.h"

namespace vila::bindings {
namespace {

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::running:
      return nullptr;
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return nullptr;
}

// A Generation that can be closed before Python collects it, also while another thread waits for its next token.
struct OpenGeneration {
  std::mutex computing;                  // held by the thread that computes; taken without the GIL only
  std::optional<Generation> generation;  // changed with the GIL and the mutex held
  bool started = false;                  // the first token was asked for
  GenerationStats stats;                 // as of the last token; like the reason it is read and written with the GIL
  FinishReason reason = FinishReason::running;

  void remember() {
    stats = generation->stats();
    reason = generation->finish_reason();
  }
};

std::unique_ptr<OpenGeneration> start(Session& session,
                                      const std::vector<std::pair<std::string, std::string>>& messages,
                                      const std::vector<Picture>& images,
                                      const std::vector<std::vector<Picture>>& videos,
                                      std::optional<std::string> system, int max_new_tokens, float temperature,
                                      float top_p, int top_k, float min_p, float repetition_penalty, std::uint64_t seed,
                                      std::vector<std::string> stop, bool ignore_eos, int num_beams, int prompt_lookup,
                                      bool reference_compat) {
  const Prompt prompt = make_prompt(messages, images, videos, std::move(system), reference_compat);
  SamplingParams params;
  params.max_new_tokens = max_new_tokens;
  params.temperature = temperature;
  params.top_p = top_p;
  params.top_k = top_k;
  params.min_p = min_p;
  params.repetition_penalty = repetition_penalty;
  params.seed = seed;
  params.stop = std::move(stop);
  params.ignore_eos = ignore_eos;
  params.num_beams = num_beams;
  params.prompt_lookup = prompt_lookup;
  auto open = std::make_unique<OpenGeneration>();
  const py::gil_scoped_release release;
  open->generation.emplace(session.start(prompt, params));
  return open;
}

// The first token waits for pictures and prompt, so a signal such as Ctrl-C must be heard meanwhile: the work runs on a
// thread of its own and this one looks for signals. Called without the GIL.
std::optional<TokenEvent> first_token(Generation& generation) {
  auto token = std::async(std::launch::async, [&generation] { return generation.next(); });
  while (token.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() == 0) continue;
    generation.cancel();
    {
      const py::gil_scoped_release release;
      token.wait();
    }
    throw py::error_already_set();
  }
  return token.get();
}

TokenEvent next(OpenGeneration& open) {
  std::optional<TokenEvent> event;
  std::unique_lock lock(open.computing, std::defer_lock);
  {
    const py::gil_scoped_release release;
    lock.lock();
    if (open.generation) {
      event = std::exchange(open.started, true) ? open.generation->next() : first_token(*open.generation);
    }
  }
  if (open.generation) open.remember();
  if (!event) throw py::stop_iteration();
  return std::move(*event);
}

void cancel(OpenGeneration& open) {
  if (open.generation) open.generation->cancel();
}

void close(OpenGeneration& open) {
  if (!open.generation) return;
  open.generation->cancel();
  std::unique_lock lock(open.computing, std::defer_lock);
  {
    const py::gil_scoped_release release;
    lock.lock();
  }
  if (!open.generation) return;
  open.remember();
  open.generation.reset();
}

}  // namespace

void bind_session(py::module_& m) {
  py::class_<TokenEvent>(m, "TokenEvent", "One generated token.")
      .def_readonly("id", &TokenEvent::id)
      .def_readonly("text", &TokenEvent::text)
      .def_readonly("logprob", &TokenEvent::logprob);
  py::class_<GenerationStats>(m, "GenerationStats", "Token counts and wall times in seconds.")
      .def_readonly("prompt_tokens", &GenerationStats::prompt_tokens)
      .def_readonly("image_tokens", &GenerationStats::image_tokens)
      .def_readonly("cached_tokens", &GenerationStats::cached_tokens)
      .def_readonly("completion_tokens", &GenerationStats::completion_tokens)
      .def_readonly("proposed_tokens", &GenerationStats::proposed_tokens)
      .def_readonly("accepted_tokens", &GenerationStats::accepted_tokens)
      .def_readonly("image_seconds", &GenerationStats::image_seconds)
      .def_readonly("prefill_seconds", &GenerationStats::prefill_seconds)
      .def_readonly("decode_seconds", &GenerationStats::decode_seconds);
  py::class_<OpenGeneration>(m, "Generation", "An open generation; iterate to pull tokens.")
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &next)
      .def("cancel", &cancel, "Stops at the next chunk of work; may be called from any thread.")
      .def("close", &close, "Ends the generation; its session can start another.")
      .def_property_readonly("finish_reason", [](const OpenGeneration& open) { return name_of(open.reason); })
      .def_readonly("stats", &OpenGeneration::stats);
  py::class_<Session>(m, "Session", "One conversation: a KV cache that keeps the longest common prefix.")
      .def("start", &start, py::arg("messages"), py::kw_only(), py::arg("images") = std::vector<Picture>{},
           py::arg("videos") = std::vector<std::vector<Picture>>{}, py::arg("system") = py::none(),
           py::arg("max_new_tokens") = 512, py::arg("temperature") = 0.0F, py::arg("top_p") = 1.0F,
           py::arg("top_k") = 0, py::arg("min_p") = 0.0F, py::arg("repetition_penalty") = 1.0F, py::arg("seed") = 0,
           py::arg("stop") = std::vector<std::string>{}, py::arg("ignore_eos") = false, py::arg("num_beams") = 1,
           py::arg("prompt_lookup") = 0, py::arg("reference_compat") = false)
      .def("reset", &Session::reset)
      .def_property_readonly("position", &Session::position)
      .def_property_readonly("cache_bytes", &Session::cache_bytes);
}

}  // namespace vila::bindings
