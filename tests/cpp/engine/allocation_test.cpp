// A decode step allocates nothing once the session is warm.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "vila/engine.h"

namespace {
std::atomic<long> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* memory = alignment > alignof(std::max_align_t)
                     ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                     : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace vila {
namespace {

TEST(Allocations, NoneInADecodeStepAfterWarmUp) {
  const testing_support::TempDir dir;
  testing_support::write_tiny_model(dir.path(), {.llm_format = "w4p16x8g32z"});
  const Engine engine = Engine::load(dir.path(), {.threads = 2});
  Session session = engine.new_session();
  Prompt prompt;
  prompt.messages = {{"user", "what is this"}};
  SamplingParams params;
  params.ignore_eos = true;
  params.max_new_tokens = 60;
  Generation generation = session.start(prompt, params);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(generation.next());
  const long before = allocations;
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(generation.next());
  EXPECT_EQ(allocations - before, 0);
}

}  // namespace
}  // namespace vila
