#include "models/config.h"

#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "vila/error.h"

namespace vila {
namespace {

using testing_support::expect_error;

std::string tiny_config(bool s2 = false) {
  const testing_support::TempDir dir;
  testing_support::write_tiny_model(dir.path(), {.s2 = s2});
  std::ostringstream text;
  text << std::ifstream(dir.path() / "config.json").rdbuf();
  return text.str();
}

ModelConfig with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  return ModelConfig::from_json(Json::parse(text, "config.json"));
}

TEST(ModelConfig, ReadsTheTinyModels) {
  const ModelConfig config = ModelConfig::from_json(Json::parse(tiny_config(true), "config.json"));
  EXPECT_EQ(config.llm.n_kv_heads, 2);
  EXPECT_EQ(config.vision.grid(), 5);
  ASSERT_TRUE(config.s2.has_value());
  EXPECT_EQ(config.s2->scales, (std::vector<std::int64_t>{30, 60}));
}

TEST(ModelConfig, NamesWhatDoesNotFit) {
  const std::string text = tiny_config();
  expect_error<CheckpointError>([&] { (void)with(text, "\"n_layers\": 2", "\"n_layers\": \"two\""); },
                                {"llm.n_layers", "an integer", "\"two\""});
  expect_error<CheckpointError>([&] { (void)with(text, "\"n_kv_heads\": 2", "\"n_kv_heads\": 3"); },
                                {"multiple of n_kv_heads", "4 and 3"});
  expect_error<CheckpointError>([&] { (void)with(text, "\"out_dim\": 64", "\"out_dim\": 65"); },
                                {"projector.out_dim", "64", "65"});
  expect_error<CheckpointError>([&] { (void)with(text, "\"in_dim\": 48", "\"in_dim\": 49"); },
                                {"projector.in_dim", "48", "49"});
  expect_error<UnsupportedError>([&] { (void)with(text, "\"siglip\"", "\"clip\""); }, {"siglip or intern_vit", "clip"});
  expect_error<UnsupportedError>([&] { (void)with(text, "mlp_downsample", "perceiver"); },
                                 {"projector.kind", "perceiver"});
  expect_error<CheckpointError>([&] { (void)with(text, "\"size\": 30", "\"size\": 31"); }, {"image.size", "30", "31"});
  expect_error<CheckpointError>([&] { (void)with(text, "\"dim\": 64", "\"dim\": 99999999999"); },
                                {"llm.dim", "99999999999"});
  expect_error<CheckpointError>([&] { (void)with(tiny_config(true), "[30, 60]", "[30, 50]"); },
                                {"s2.scales", "30", "50"});
}

}  // namespace
}  // namespace vila
