// How many threads this process may sensibly use.
#pragma once

#include <string>

namespace vila {

/// Physical cores within the affinity mask, limited by the cgroup quota (v1 and v2), at least 1.
int usable_cores();

/// The quota in cores that a cgroup v2 `cpu.max` text ("max 100000", "150000 100000") grants; 0 when unlimited or
/// unreadable.
double parse_cpu_max(const std::string& text);

}  // namespace vila
