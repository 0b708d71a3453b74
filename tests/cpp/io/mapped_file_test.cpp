#include "io/mapped_file.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "vila/error.h"

namespace vila {
namespace {

TEST(FileBytes, BothWaysGiveTheFilesBytes) {
  const testing_support::TempDir dir;
  std::string content(20'000'003, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 251);
  const auto path = dir.write("bytes", content);
  ThreadPool pool(3);
  const FileBytes mapped = FileBytes::map(path);
  const FileBytes read = FileBytes::read(path, pool);
  for (const FileBytes* bytes : {&mapped, &read}) {
    ASSERT_EQ(bytes->bytes().size(), content.size());
    EXPECT_TRUE(std::equal(content.begin(), content.end(), reinterpret_cast<const char*>(bytes->bytes().data())));
  }
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.bytes().data()) % 64, 0U);
}

TEST(FileBytes, EmptyAndMissingFiles) {
  const testing_support::TempDir dir;
  ThreadPool pool(2);
  EXPECT_TRUE(FileBytes::map(dir.write("empty", "")).bytes().empty());
  testing_support::expect_error<IoError>([&] { (void)FileBytes::read(dir.path() / "none", pool); },
                                         {"cannot open", "none"});
  testing_support::expect_error<IoError>([&] { (void)FileBytes::map(dir.path()); }, {"regular file"});
}

}  // namespace
}  // namespace vila
