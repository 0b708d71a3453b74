#include "kernels/dispatch.h"

#include <cstdlib>

#include "kernels/cpu_features.h"
#include "vila/error.h"

namespace vila::kernels {

#define VILA_ISA(name) extern const KernelTable k_##name;
#include "kernels/isa_list.inc"
#undef VILA_ISA

namespace {

// Best first: the order of isa_list.inc, which CMake writes from the table in cmake/VilaIsa.cmake.
constexpr const KernelTable* kTables[] = {
#define VILA_ISA(name) &k_##name,
#include "kernels/isa_list.inc"
#undef VILA_ISA
};

}  // namespace

std::span<const KernelTable* const> compiled_kernels() { return kTables; }

bool supported_here(const KernelTable& table) { return can_run(table.isa, cpu_features()); }

const KernelTable& kernels_by_name(std::string_view name) {
  std::string usable;
  const KernelTable* compiled = nullptr;
  for (const KernelTable* table : compiled_kernels()) {
    if (supported_here(*table)) {
      if (name == table->name) return *table;
      usable += (usable.empty() ? "" : ", ") + std::string(table->name);
    } else if (name == table->name) {
      compiled = table;
    }
  }
  throw UnsupportedError("[isa] expected one of " + usable + ", got \"" + std::string(name) + "\"" +
                         (compiled != nullptr ? ", which this CPU cannot run" : ", which is not in this build"));
}

const KernelTable& default_kernels() {
  // A wrong VILA_ISA throws at every call: nothing is remembered until the choice was good.
  static const KernelTable& chosen = []() -> const KernelTable& {
    const char* forced = std::getenv("VILA_ISA");
    if (forced != nullptr && *forced != '\0') return kernels_by_name(forced);
    for (const KernelTable* table : compiled_kernels()) {
      if (supported_here(*table)) return *table;
    }
    throw UnsupportedError("[isa] expected a kernel table that this CPU can run, got none");
  }();
  return chosen;
}

}  // namespace vila::kernels
