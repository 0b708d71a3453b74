// The engine and the module's free functions.
#include "convert.h"
#include "text/tokenizer.h"

namespace vila::bindings {
namespace {

Engine load(const std::string& path, int threads, const std::string& isa, const std::string& memory,
            const std::string& kv_cache, std::int64_t max_context, const std::string& conv_mode) {
  EngineOptions options;
  options.threads = threads;
  options.isa = isa;
  options.max_context = max_context;
  options.conv_mode = conv_mode;
  if (memory != "fast" && memory != "mapped") {
    throw InvalidArgument("[load] memory: expected \"fast\" or \"mapped\", got \"" + memory + "\"");
  }
  options.memory = memory == "fast" ? MemoryMode::fast : MemoryMode::mapped;
  options.kv_cache = kv_cache_type(kv_cache);
  const py::gil_scoped_release release;
  return Engine::load(path, options);
}

template <FloatArray (Engine::*method)(ImageView) const>
py::array_t<float> of_image(const Engine& engine, const Picture& image) {
  const ImageView view = view_of(image);
  FloatArray result;
  {
    const py::gil_scoped_release release;
    result = (engine.*method)(view);
  }
  return to_numpy(std::move(result));
}

using Messages = std::vector<std::pair<std::string, std::string>>;

// A prompt whose media are stand-ins: prompt_text and prompt_ids only count them.
Prompt counted_prompt(const Messages& messages, std::size_t images, const std::vector<std::size_t>& videos,
                      std::optional<std::string> system, bool reference_compat) {
  static constexpr std::uint8_t kPixel[3] = {};
  const ImageView pixel{kPixel, 1, 1, 3};
  Prompt prompt = make_prompt(messages, {}, {}, std::move(system), reference_compat);
  prompt.images.assign(images, pixel);
  for (const std::size_t frames : videos) prompt.videos.emplace_back(frames, pixel);
  return prompt;
}

}  // namespace

void bind_engine(py::module_& m) {
  const auto counted_args = [] {
    return std::make_tuple(py::arg("messages"), py::kw_only(), py::arg("images") = 0,
                           py::arg("videos") = std::vector<std::size_t>{}, py::arg("system") = py::none(),
                           py::arg("reference_compat") = false);
  };
  py::class_<Engine> engine(m, "Engine", "A loaded model; immutable, safe to use from several threads.");
  engine
      .def_static("load", &load, py::arg("path"), py::kw_only(), py::arg("threads") = 0, py::arg("isa") = "",
                  py::arg("memory") = "fast", py::arg("kv_cache") = "f16", py::arg("max_context") = 0,
                  py::arg("conv_mode") = "")
      .def("new_session", &Engine::new_session)
      .def("preprocess", &of_image<&Engine::preprocess>, py::arg("image"))
      .def("vision_features", &of_image<&Engine::vision_features>, py::arg("image"))
      .def("encode_image", &of_image<&Engine::encode_image>, py::arg("image"))
      .def(
          "logits",
          [](const Engine& self, const Messages& messages, const std::vector<Picture>& images,
             const std::vector<std::vector<Picture>>& videos, std::optional<std::string> system,
             bool reference_compat) {
            const Prompt prompt = make_prompt(messages, images, videos, std::move(system), reference_compat);
            FloatArray result;
            {
              const py::gil_scoped_release release;
              result = self.logits(prompt);
            }
            return to_numpy(std::move(result));
          },
          py::arg("messages"), py::kw_only(), py::arg("images") = std::vector<Picture>{},
          py::arg("videos") = std::vector<std::vector<Picture>>{}, py::arg("system") = py::none(),
          py::arg("reference_compat") = false)
      .def_property_readonly("tokenizer", &Engine::tokenizer, py::return_value_policy::reference_internal)
      .def_property_readonly("info", &Engine::info_json);
  std::apply(
      [&engine](auto&&... args) {
        engine.def(
            "prompt_text",
            [](const Engine& self, const Messages& messages, std::size_t images, const std::vector<std::size_t>& videos,
               std::optional<std::string> system, bool compat) {
              return self.prompt_text(counted_prompt(messages, images, videos, std::move(system), compat));
            },
            args...);
        engine.def(
            "prompt_ids",
            [](const Engine& self, const Messages& messages, std::size_t images, const std::vector<std::size_t>& videos,
               std::optional<std::string> system, bool compat) {
              return self.prompt_ids(counted_prompt(messages, images, videos, std::move(system), compat));
            },
            args...);
      },
      counted_args());

  m.def("tag_media", &tag_media, py::arg("text"), py::arg("n_images"), py::arg("n_videos"),
        "Puts marks in front of a message for untagged media.");
  m.def(
      "kernel_names",
      [] {
        std::vector<std::pair<std::string, bool>> names;
        for (const KernelInfo& info : kernel_list()) names.emplace_back(info.name, info.usable);
        return names;
      },
      "Compiled kernel tables, best first, and whether this machine can run each.");
  m.def("chosen_kernels", &chosen_kernels, "The table that new engines use; honours VILA_ISA.");
  m.def(
      "measure_limits",
      [](int threads, const std::string& isa) {
        MachineLimits limits;
        {
          const py::gil_scoped_release release;
          limits = measure_limits(threads, isa);
        }
        return py::dict(py::arg("read_bytes_per_second") = limits.read_bytes_per_second,
                        py::arg("dot_macs_per_second") = limits.dot_macs_per_second,
                        py::arg("fma_macs_per_second") = limits.fma_macs_per_second,
                        py::arg("huge_page_bytes") = limits.huge_page_bytes);
      },
      py::kw_only(), py::arg("threads") = 0, py::arg("isa") = "", "What the machine can do at best, measured.");
  m.def("default_threads", &default_threads, "Physical cores within the affinity mask and the cgroup quota.");
}

}  // namespace vila::bindings
