#include "threading/thread_pool.h"

#include <algorithm>
#include <chrono>

namespace vila {
namespace {

// Regions of a forward pass follow each other within microseconds; sleeping between them would cost more than it saves.
// Longer gaps (sampling, the host's own work) must not burn a core.
constexpr auto kSpin = std::chrono::microseconds(100);

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : shares_(std::make_unique<Share[]>(static_cast<std::size_t>(std::max(threads, 1)))) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker_loop(i); });
}

ThreadPool::~ThreadPool() {
  quit_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::work(int thread) {
  for (int i = 0; i < size(); ++i) {
    Share& share = shares_[static_cast<std::size_t>((thread + i) % size())];
    while (true) {
      const std::int64_t begin = share.next.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= share.end) break;
      try {
        call_(context_, begin, std::min(begin + grain_, share.end));
      } catch (...) {
        const std::scoped_lock lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }
}

bool ThreadPool::enter() {
  std::uint32_t state = state_.load(std::memory_order_relaxed);
  while ((state & kOpen) != 0) {
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire, std::memory_order_relaxed))
      return true;
  }
  return false;
}

void ThreadPool::leave() {
  if (state_.fetch_sub(1, std::memory_order_release) == 1) state_.notify_one();
}

void ThreadPool::worker_loop(int thread) {
  std::uint32_t seen = 0;
  while (true) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    while (generation_.load(std::memory_order_acquire) == seen) {
      for (int i = 0; i < 64 && generation_.load(std::memory_order_relaxed) == seen; ++i) pause_cpu();
      if (std::chrono::steady_clock::now() > deadline) generation_.wait(seen, std::memory_order_acquire);
    }
    seen = generation_.load(std::memory_order_acquire);
    if (quit_.load(std::memory_order_relaxed)) return;
    if (enter()) {
      work(thread);
      leave();
    }
  }
}

void ThreadPool::run(std::int64_t n, std::int64_t grain, Call call, void* context) {
  const std::scoped_lock lock(region_);
  call_ = call;
  context_ = context;
  grain_ = std::max<std::int64_t>(grain, 1);
  error_ = nullptr;
  const std::int64_t pieces = (n + grain_ - 1) / grain_;
  for (std::int64_t i = 0; i < size(); ++i) {
    Share& share = shares_[static_cast<std::size_t>(i)];
    share.next.store(pieces * i / size() * grain_, std::memory_order_relaxed);
    share.end = std::min(pieces * (i + 1) / size() * grain_, n);
  }
  state_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  work(0);
  state_.fetch_and(~kOpen, std::memory_order_relaxed);
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  for (auto inside = state_.load(std::memory_order_acquire); inside > 0;
       inside = state_.load(std::memory_order_acquire)) {
    pause_cpu();
    if (std::chrono::steady_clock::now() > deadline) state_.wait(inside, std::memory_order_acquire);
  }
  if (error_) std::rethrow_exception(error_);
}

}  // namespace vila
