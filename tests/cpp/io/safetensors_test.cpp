#include "io/safetensors.h"

#include <cstddef>
#include <memory>
#include <new>
#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/safetensors_writer.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;
using testing_support::safetensors_bytes;

// Parses from 64-byte aligned memory, as the loader does.
SafetensorsFile parse(const std::string& text) {
  static std::unique_ptr<std::byte, void (*)(std::byte*)> memory(
      nullptr, [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); });
  memory.reset(static_cast<std::byte*>(::operator new (text.size() + 1, std::align_val_t{64})));
  std::memcpy(memory.get(), text.data(), text.size());
  return parse_safetensors({memory.get(), text.size()}, "m.safetensors");
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string data("\0\0\x80\x3f\0\0\0\x40\x07", 9);  // 1.0f, 2.0f, 7
  const SafetensorsFile file = parse(safetensors_bytes(
      R"({"__metadata__": {"k": "v"}, "x": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},)"
      R"( "y": {"dtype": "U8", "shape": [1], "data_offsets": [8, 9]}})",
      data));
  EXPECT_EQ(file.metadata.at("k"), "v");
  EXPECT_EQ(file.tensors.at("x").shape, (std::vector<std::int64_t>{2, 1}));
  EXPECT_EQ(file.tensors.at("x").as<float>()[1], 2.0F);
  EXPECT_EQ(file.tensors.at("y").as<std::uint8_t>()[0], 7);
}

struct Attack {
  const char* name;
  std::string header;
  std::size_t data_bytes;
  const char* complaint;
};

class SafetensorsAttacks : public testing::TestWithParam<Attack> {};

TEST_P(SafetensorsAttacks, GetATypedError) {
  const Attack& attack = GetParam();
  const std::string bytes = safetensors_bytes(attack.header, std::string(attack.data_bytes, '\0'));
  expect_error<CheckpointError>([&] { (void)parse(bytes); }, {attack.complaint});
}

INSTANTIATE_TEST_SUITE_P(
    Headers, SafetensorsAttacks,
    testing::Values(
        Attack{"short_range", R"({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}})", 4,
               "of data, got more"},
        Attack{"wrong_range", R"({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}})", 64,
               "expected 8 bytes"},
        Attack{"beyond", R"({"x": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}})", 8, "of data, got more"},
        Attack{"overflow", R"({"x": {"dtype": "F32", "shape": [4294967296, 4294967296, 4], "data_offsets": [0, 8]}})",
               8, "of data, got more"},
        Attack{"negative", R"({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})", 4, "shape[0]"},
        Attack{"backwards", R"({"x": {"dtype": "U8", "shape": [0], "data_offsets": [4, 2]}})", 4, "data_offsets[1]"},
        Attack{
            "overlap",
            R"({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "y": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}})",
            6, "overlap"},
        Attack{"trailing", R"({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})", 40,
               "expected data of 4 bytes"},
        Attack{"dtype", R"({"x": {"dtype": "F99", "shape": [4], "data_offsets": [0, 4]}})", 4, "F99"},
        Attack{
            "misaligned",
            R"({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "y": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}})",
            5, "a multiple of its element size"},
        Attack{"not_an_object", "[1, 2]", 0, "expected an object"}, Attack{"not_json", "{\"x\": ", 0, "valid JSON"}),
    [](const auto& test) { return test.param.name; });

TEST(Safetensors, RefusesBrokenLengths) {
  expect_error<CheckpointError>([] { (void)parse("abc"); }, {"at least 8 bytes", "got 3"});
  expect_error<CheckpointError>([] { (void)parse(std::string(8, '\xff') + "{}"); }, {"fits the file"});
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string whole =
      safetensors_bytes(R"({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})", std::string(16, 'a'));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW((void)parse(whole.substr(0, size)), CheckpointError) << size;
  }
  EXPECT_NO_THROW((void)parse(whole));
}

}  // namespace
}  // namespace vila
