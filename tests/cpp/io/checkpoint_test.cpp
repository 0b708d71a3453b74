#include "io/checkpoint.h"

#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/safetensors_writer.h"
#include "support/temp_dir.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;
using testing_support::safetensors_bytes;
using testing_support::TempDir;

constexpr const char* kConfig = R"({"format": "vila_engine", "format_version": 1})";

struct Fixture {
  TempDir dir;
  ThreadPool pool{1};

  Checkpoint open(const std::string& config, const std::string& header, std::size_t data_bytes) {
    dir.write("config.json", config);
    dir.write("model.safetensors", safetensors_bytes(header, std::string(data_bytes, '\0')));
    return Checkpoint(dir.path(), Checkpoint::Memory::fast, pool);
  }
};

TEST(Checkpoint, BindsByNameAndShape) {
  Fixture f;
  const Checkpoint checkpoint = f.open(
      kConfig,
      R"({"__metadata__": {"a.m": "w8p16x4g32"}, "a.m.weight": {"dtype": "U8", "shape": [1, 16, 64], "data_offsets": [0, 1024]},)"
      R"("a.m.weight_scale": {"dtype": "F16", "shape": [1, 2, 16], "data_offsets": [1024, 1088]},)"
      R"("a.v": {"dtype": "F32", "shape": [3], "data_offsets": [1088, 1100]}})",
      1100);
  const WeightScope scope = checkpoint.root().sub("a");
  EXPECT_NE(scope.vector("v", 3), nullptr);
  const Weight weight = scope.matrix("m", 10, 50);  // padded to 16 rows and 64 columns
  EXPECT_NE(weight.values, nullptr);
  EXPECT_NE(weight.scales, nullptr);
  EXPECT_TRUE(scope.has("v"));
  EXPECT_FALSE(scope.has("w"));
  EXPECT_NO_THROW(checkpoint.finish());
}

TEST(Checkpoint, CollectsEverythingThatIsWrong) {
  Fixture f;
  const Checkpoint checkpoint = f.open(
      kConfig, R"({"__metadata__": {"m": "w9"}, "v": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}})", 12);
  (void)checkpoint.root().vector("v", 4);
  (void)checkpoint.root().vector("missing", 4);
  (void)checkpoint.root().matrix("m", 16, 16);
  (void)checkpoint.root().matrix("no_format", 16, 16);
  expect_error<CheckpointError>([&] { checkpoint.finish(); },
                                {"4 tensors", "v: expected F32 [4], got F32 [3]",
                                 "missing: expected F32 [4], got nothing", "m: ", "w9", "no_format"});
}

TEST(Checkpoint, RefusesTensorsNobodyAskedFor) {
  Fixture f;
  const Checkpoint checkpoint =
      f.open(kConfig, R"({"stray": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}})", 12);
  expect_error<CheckpointError>([&] { checkpoint.finish(); }, {"stray", "expected no such tensor"});
}

TEST(Checkpoint, RefusesOtherFoldersAndVersions) {
  Fixture f;
  expect_error<CheckpointError>([&] { (void)f.open(R"({"model_type": "llava_llama"})", "{}", 0); },
                                {"convert it first"});
  expect_error<UnsupportedError>([&] { (void)f.open(R"({"format": "vila_engine", "format_version": 9})", "{}", 0); },
                                 {"expected 1, got 9"});
  expect_error<IoError>([&] { const Checkpoint c("/nonexistent", Checkpoint::Memory::mapped, f.pool); },
                        {"config.json"});
}

}  // namespace
}  // namespace vila
