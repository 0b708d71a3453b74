#include "layout/weight_format.h"

#include <charconv>

#include "vila/error.h"

namespace vila {
namespace {

constexpr std::int64_t kWholeRowStep = 128;  // columns of whole-row int8 are padded to this

[[noreturn]] void unknown(std::string_view text) {
  throw InvalidArgument(
      "[weight format] expected f32p16, f16p16, w8p16x4g<0|32|64|128> or w4p16x8g<32|64|128> with an "
      "optional z or o, got \"" +
      std::string(text) + "\"");
}

}  // namespace

WeightFormat WeightFormat::parse(std::string_view text) {
  WeightFormat format;
  if (text == "f32p16") return format;
  if (text == "f16p16") {
    format.kind = WeightKind::f16p16;
    return format;
  }
  std::string_view rest = text;
  if (rest.starts_with("w8p16x4g")) {
    format.kind = WeightKind::w8p16x4;
  } else if (rest.starts_with("w4p16x8g")) {
    format.kind = WeightKind::w4p16x8;
  } else {
    unknown(text);
  }
  rest.remove_prefix(8);
  if (format.kind == WeightKind::w4p16x8 && (rest.ends_with('z') || rest.ends_with('o'))) {
    format.zero = rest.back() == 'z' ? ZeroKind::u8 : ZeroKind::f16_offset;
    rest.remove_suffix(1);
  }
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), format.group);
  const bool known = format.group == 32 || format.group == 64 || format.group == 128 ||
                     (format.group == 0 && format.kind == WeightKind::w8p16x4);
  if (error != std::errc() || end != rest.data() + rest.size() || !known) unknown(text);
  return format;
}

std::string WeightFormat::to_string() const {
  switch (kind) {
    case WeightKind::f32p16:
      return "f32p16";
    case WeightKind::f16p16:
      return "f16p16";
    case WeightKind::w8p16x4:
      return "w8p16x4g" + std::to_string(group);
    case WeightKind::w4p16x8:
      break;
  }
  return "w4p16x8g" + std::to_string(group) + (zero == ZeroKind::u8 ? "z" : zero == ZeroKind::f16_offset ? "o" : "");
}

std::int64_t WeightFormat::padded_k(std::int64_t k) const {
  return is_integer() ? round_up(k, group > 0 ? group : kWholeRowStep) : k;
}

std::int64_t WeightFormat::tile_bytes(std::int64_t k) const {
  switch (kind) {
    case WeightKind::f32p16:
      return k * kTileRows * 4;
    case WeightKind::f16p16:
      return k * kTileRows * 2;
    case WeightKind::w8p16x4:
      return padded_k(k) * kTileRows;
    case WeightKind::w4p16x8:
      return padded_k(k) * kTileRows / 2;
  }
  return 0;
}

}  // namespace vila
