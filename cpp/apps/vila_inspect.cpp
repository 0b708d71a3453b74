// Prints the kernel tables of this build and, for a model folder, what the engine made of it.
#include <iostream>

#include "vila/vila.h"

int main(int argc, char** argv) {
  try {
    if (argc > 2) {
      std::cerr << "usage: vila-inspect [MODEL]\n";
      return 2;
    }
    if (argc == 2) {
      vila::EngineOptions options;
      options.memory = vila::MemoryMode::mapped;
      std::cout << vila::Engine::load(argv[1], options).info_json() << "\n";
      return 0;
    }
    const std::string chosen = vila::chosen_kernels();
    for (const vila::KernelInfo& kernel : vila::kernel_list()) {
      std::cout << kernel.name << (kernel.usable ? " usable" : " not usable here")
                << (kernel.name == chosen ? " chosen" : "") << "\n";
    }
    std::cout << "threads " << vila::default_threads() << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
