// A program that sees only the installed package: decodes pictures, asks for the kernels of this machine, and gets the
// typed error of a model that is not there. Arguments: picture files, each 4 x 2 pixels, left half red, right half
// blue.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "vila/vila.h"

namespace {

void expect(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error("expected " + what);
}

void expect_checker(const vila::Image& image) {
  expect(image.width == 4 && image.height == 2, "4 x 2 pixels");
  for (int i = 0; i < 8; ++i) {
    const std::uint8_t* pixel = image.rgb.data() + 3 * i;
    const bool left = i % 4 < 2;
    expect(pixel[0] == (left ? 255 : 0) && pixel[1] == 0 && pixel[2] == (left ? 0 : 255), "red left and blue right");
  }
}

std::vector<char> ppm_checker() {
  const std::string header = "P6\n4 2\n255\n";
  std::vector<char> bytes(header.begin(), header.end());
  for (int i = 0; i < 8; ++i) {
    const bool left = i % 4 < 2;
    for (const int value : {left ? 255 : 0, 0, left ? 0 : 255}) bytes.push_back(static_cast<char>(value));
  }
  return bytes;
}

void run(std::span<char*> files) {
  const std::vector<char> ppm = ppm_checker();
  expect_checker(vila::decode_image(std::as_bytes(std::span(ppm))));
  for (const char* file : files) {
    std::ifstream stream(file, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), {}};
    expect_checker(vila::decode_image(std::as_bytes(std::span(bytes))));
  }

  bool refused = false;
  try {
    vila::Engine::load("no/such/model");
  } catch (const vila::IoError& error) {
    refused = error.code() == vila::ErrorCode::io;
  }
  expect(refused, "an IoError for a missing model");

  expect(vila::default_threads() >= 1, "at least one thread");
  std::cout << "vila_engine " << vila::kVersion << ", kernels " << vila::chosen_kernels() << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(std::span(argv, static_cast<std::size_t>(argc)).subspan(1));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
