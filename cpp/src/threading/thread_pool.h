// The engine's own threads. No OpenMP, so that it can live in any host process.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace vila {

/// Runs parallel regions. Any thread may call parallel_for; regions take turns, so several sessions interleave region
/// by region. The calling thread works too. Idle threads spin for a moment and then sleep. A thread that the system
/// has not woken when the work is done is not waited for, so a core that others keep busy delays nobody.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls f(begin, end) over 0..n in pieces of `grain`. Every thread begins with a share of its own, so that it reads
  /// memory from front to back, and then takes what is left of the others' shares. Results must not depend on which
  /// thread takes what. The first exception is rethrown here after all pieces have ended.
  template <class F>
  void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
    if (n <= 0) return;
    if (workers_.empty() || n <= grain) {
      f(std::int64_t{0}, n);
      return;
    }
    run(
        n, grain, [](void* context, std::int64_t begin, std::int64_t end) { (*static_cast<F*>(context))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Call = void (*)(void* context, std::int64_t begin, std::int64_t end);
  void run(std::int64_t n, std::int64_t grain, Call call, void* context);
  void work(int thread);
  bool enter();
  void leave();
  void worker_loop(int thread);

  struct alignas(64) Share {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };

  static constexpr std::uint32_t kOpen = 1U << 31;  // in state_: workers may enter the region

  std::vector<std::thread> workers_;
  std::mutex region_;  // one region at a time

  // The region's description; written while nobody is inside, read after entering.
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::int64_t grain_ = 1;
  std::exception_ptr error_;
  std::mutex error_mutex_;

  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::unique_ptr<Share[]> shares_;                  // one per thread; the caller's is the first
  alignas(64) std::atomic<std::uint32_t> state_{0};  // kOpen plus the number of workers inside
  std::atomic<bool> quit_{false};
};

}  // namespace vila
