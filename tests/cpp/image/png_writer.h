// Writes PNG files of every colour type, bit depth and interlacing from samples, uncompressed: the format's description
// in code, nothing of libpng.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace vila::testing_support {

struct PngPicture {
  std::uint32_t width = 0, height = 0;
  int depth = 8;   ///< bits per sample
  int colour = 2;  ///< 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha
  bool interlaced = false;
  std::vector<std::uint8_t> palette = {};                                             ///< RGB triples
  std::vector<std::uint8_t> transparency = {};                                        ///< a tRNS chunk's bytes
  std::function<std::uint32_t(std::uint32_t x, std::uint32_t y, int c)> sample = {};  ///< value of channel c

  [[nodiscard]] int channels() const { return colour == 0 || colour == 3 ? 1 : colour == 4 ? 2 : colour == 2 ? 3 : 4; }
};

using Bytes = std::vector<std::uint8_t>;

inline void put32(Bytes& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(value >> shift));
}

inline void put_chunk(Bytes& out, std::string_view kind, const Bytes& body) {
  put32(out, static_cast<std::uint32_t>(body.size()));
  const std::size_t begin = out.size();
  out.insert(out.end(), kind.begin(), kind.end());
  out.insert(out.end(), body.begin(), body.end());
  std::uint32_t crc = 0xffffffffU;
  for (std::size_t i = begin; i < out.size(); ++i) {
    crc ^= out[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
  }
  put32(out, ~crc);
}

/// A zlib stream of stored blocks.
inline Bytes zlib_stored(const Bytes& data) {
  Bytes out = {0x78, 0x01};
  std::size_t at = 0;
  do {
    const std::size_t size = std::min<std::size_t>(data.size() - at, 65535);
    out.push_back(at + size == data.size() ? 1 : 0);
    for (const std::size_t word : {size, ~size}) {
      out.push_back(static_cast<std::uint8_t>(word));
      out.push_back(static_cast<std::uint8_t>(word >> 8));
    }
    out.insert(out.end(), data.begin() + static_cast<std::ptrdiff_t>(at),
               data.begin() + static_cast<std::ptrdiff_t>(at + size));
    at += size;
  } while (at < data.size());
  std::uint32_t a = 1, b = 0;
  for (const std::uint8_t byte : data) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  put32(out, b << 16 | a);
  return out;
}

/// Rows of the pixels x0, x0 + dx, ... of the lines y0, y0 + dy, ..., each behind the filter byte 0.
inline void put_rows(Bytes& out, const PngPicture& p, std::uint32_t x0, std::uint32_t y0, std::uint32_t dx,
                     std::uint32_t dy) {
  if (x0 >= p.width) return;
  for (std::uint32_t y = y0; y < p.height; y += dy) {
    out.push_back(0);
    std::uint32_t bits = 0;
    int filled = 0;
    for (std::uint32_t x = x0; x < p.width; x += dx) {
      for (int c = 0; c < p.channels(); ++c) {
        bits = bits << p.depth | p.sample(x, y, c);
        for (filled += p.depth; filled >= 8; filled -= 8)
          out.push_back(static_cast<std::uint8_t>(bits >> (filled - 8)));
      }
    }
    if (filled > 0) out.push_back(static_cast<std::uint8_t>(bits << (8 - filled)));
  }
}

inline Bytes png_file(const PngPicture& p) {
  Bytes pixels;
  if (p.interlaced) {  // Adam7
    static constexpr std::uint32_t kPasses[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                                    {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    for (const auto& pass : kPasses) put_rows(pixels, p, pass[0], pass[1], pass[2], pass[3]);
  } else {
    put_rows(pixels, p, 0, 0, 1, 1);
  }
  Bytes header;
  put32(header, p.width);
  put32(header, p.height);
  for (const int value : {p.depth, p.colour, 0, 0, p.interlaced ? 1 : 0})
    header.push_back(static_cast<std::uint8_t>(value));
  Bytes out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  put_chunk(out, "IHDR", header);
  if (!p.palette.empty()) put_chunk(out, "PLTE", p.palette);
  if (!p.transparency.empty()) put_chunk(out, "tRNS", p.transparency);
  put_chunk(out, "IDAT", zlib_stored(pixels));
  put_chunk(out, "IEND", {});
  return out;
}

}  // namespace vila::testing_support
