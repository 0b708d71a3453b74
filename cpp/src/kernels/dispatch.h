// Chooses the kernel table once per process: VILA_ISA if set, else the best one that this CPU can run.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel_table.h"

namespace vila::kernels {

/// Tables compiled into this build, best first; the scalar one is always last.
std::span<const KernelTable* const> compiled_kernels();

/// Whether this CPU and operating system can run the table.
bool supported_here(const KernelTable& table);

/// Finds a compiled and usable table. Throws UnsupportedError that names the usable ones.
const KernelTable& kernels_by_name(std::string_view name);

/// The process-wide choice. Throws UnsupportedError (naming the usable ones) if VILA_ISA is unknown or unusable.
const KernelTable& default_kernels();

}  // namespace vila::kernels
