#include "threading/topology.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace vila {
namespace {

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

// The tightest quota on the way from this process's cgroup to the root, in cores; 0 when there is none.
double cgroup_quota() {
  double best = 0;
  const auto consider = [&best](double cores) {
    if (cores > 0 && (best == 0 || cores < best)) best = cores;
  };
  std::istringstream lines(read_text("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("cpu") == std::string::npos) continue;
    while (true) {
      if (v2) {
        consider(parse_cpu_max(read_text("/sys/fs/cgroup" + path + "/cpu.max")));
      } else {
        const std::string base = "/sys/fs/cgroup/cpu" + path;
        const std::string quota = read_text(base + "/cpu.cfs_quota_us");
        const std::string period = read_text(base + "/cpu.cfs_period_us");
        if (!quota.empty() && quota[0] != '-' && !period.empty()) consider(parse_cpu_max(quota + " " + period));
      }
      if (path.empty() || path == "/") break;
      path = path.substr(0, path.rfind('/'));
    }
  }
  return best;
}

}  // namespace

double parse_cpu_max(const std::string& text) {
  std::istringstream in(text);
  double quota = 0;
  double period = 0;
  return (in >> quota >> period) && quota > 0 && period > 0 ? quota / period : 0;
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    std::set<std::string> physical;  // one entry per set of hyper-thread siblings
    int logical = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &set)) continue;
      ++logical;
      const std::string siblings =
          read_text("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
      physical.insert(siblings.empty() ? std::to_string(cpu) : siblings);
    }
    cores = physical.empty() ? logical : static_cast<int>(physical.size());
  }
#endif
  const double quota = cgroup_quota();
  if (quota > 0) cores = std::min(cores, static_cast<int>(std::floor(quota)));
  return std::max(cores, 1);
}

}  // namespace vila
