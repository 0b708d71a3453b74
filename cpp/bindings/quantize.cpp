// Packing of weights for the converter: the one binding that sees the layout room.
#include "convert.h"
#include "layout/packing.h"

namespace vila::bindings {
namespace {

template <class T>
using Dense = py::array_t<T, py::array::c_style>;

template <class T>
py::array_t<T> array_of(const std::vector<T>& data, std::vector<py::ssize_t> shape) {
  py::array_t<T> array(std::move(shape));
  std::copy(data.begin(), data.end(), array.mutable_data());
  return array;
}

py::array as_half(const std::vector<std::uint16_t>& bits, std::vector<py::ssize_t> shape) {
  return array_of(bits, std::move(shape)).attr("view")("float16");
}

py::dict to_parts(const PackedMatrix& packed) {
  const py::ssize_t tiles = packed.format.padded_n(packed.n) / kTileRows;
  const std::vector<py::ssize_t> groups = {tiles, packed.format.n_groups(packed.k), kTileRows};
  py::dict parts;
  const py::array_t<std::uint8_t> bytes = array_of(packed.values, {static_cast<py::ssize_t>(packed.values.size())});
  switch (packed.format.kind) {
    case WeightKind::f32p16:
      parts["weight"] = bytes.attr("view")("float32").attr("reshape")(tiles, packed.k, kTileRows);
      break;
    case WeightKind::f16p16:
      parts["weight"] = bytes.attr("view")("float16").attr("reshape")(tiles, packed.k, kTileRows);
      break;
    case WeightKind::w8p16x4:
    case WeightKind::w4p16x8:
      parts["weight"] = bytes.attr("reshape")(tiles, -1, 64);
      break;
  }
  if (!packed.scales.empty()) parts["weight_scale"] = as_half(packed.scales, groups);
  if (!packed.zeros.empty()) parts["weight_zero"] = array_of(packed.zeros, groups);
  if (!packed.offsets.empty()) parts["weight_offset"] = as_half(packed.offsets, groups);
  return parts;
}

template <class T>
std::span<const T> span_of(const py::array& array) {
  return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

void check_matrix(const py::array& array, const char* what) {
  if (array.ndim() != 2) {
    throw InvalidArgument("[pack] " + std::string(what) + ": expected a matrix [N, K], got rank " +
                          std::to_string(array.ndim()));
  }
}

py::dict pack(const Dense<float>& w, const std::string& format) {
  check_matrix(w, "w");
  PackedMatrix packed;
  {
    const py::gil_scoped_release release;
    packed = pack_matrix({w.data(), static_cast<std::size_t>(w.size())}, w.shape(0), w.shape(1),
                         WeightFormat::parse(format));
  }
  return to_parts(packed);
}

std::span<const std::uint16_t> half_bits(const py::object& array, const char* what) {
  const auto a = py::cast<py::array>(array);
  if (!a.dtype().is(py::dtype("float16")) && a.dtype().char_() != 'e') {
    throw InvalidArgument("[pack] " + std::string(what) + ": expected float16, got " +
                          py::str(a.dtype()).cast<std::string>());
  }
  return span_of<std::uint16_t>(a);
}

py::dict pack_ready_int4(const Dense<std::uint8_t>& q, const py::array& scales, const std::string& format,
                         const std::optional<Dense<std::uint8_t>>& zeros, const std::optional<py::array>& offsets) {
  check_matrix(q, "q");
  const py::module_ numpy = py::module_::import("numpy");
  const py::object dense_scales = numpy.attr("ascontiguousarray")(scales);
  const py::object dense_offsets = offsets ? numpy.attr("ascontiguousarray")(*offsets) : py::object(py::none());
  const PackedMatrix packed =
      pack_int4({q.data(), static_cast<std::size_t>(q.size())}, half_bits(dense_scales, "scales"),
                zeros ? std::span<const std::uint8_t>(zeros->data(), static_cast<std::size_t>(zeros->size()))
                      : std::span<const std::uint8_t>{},
                offsets ? half_bits(dense_offsets, "offsets") : std::span<const std::uint16_t>{}, q.shape(0),
                q.shape(1), WeightFormat::parse(format));
  return to_parts(packed);
}

template <class T>
std::vector<T> part(const py::dict& parts, const char* key, bool needed) {
  if (!parts.contains(key)) {
    if (needed) throw InvalidArgument("[unpack] " + std::string(key) + ": expected an array, got nothing");
    return {};
  }
  const py::object dense = py::module_::import("numpy").attr("ascontiguousarray")(parts[key]);
  const auto array = py::cast<py::array>(dense);
  const auto bytes = static_cast<std::size_t>(array.nbytes());
  std::vector<T> result(bytes / sizeof(T));
  std::memcpy(result.data(), array.data(), result.size() * sizeof(T));
  return result;
}

Dense<float> unpack(const py::dict& parts, const std::string& format, std::int64_t n, std::int64_t k) {
  PackedMatrix packed;
  packed.format = WeightFormat::parse(format);
  packed.n = n;
  packed.k = k;
  packed.values = part<std::uint8_t>(parts, "weight", true);
  packed.scales = part<std::uint16_t>(parts, "weight_scale", packed.format.is_integer());
  packed.zeros = part<std::uint8_t>(parts, "weight_zero", packed.format.zero == ZeroKind::u8);
  packed.offsets = part<std::uint16_t>(parts, "weight_offset", packed.format.zero == ZeroKind::f16_offset);
  return array_of(unpack_matrix(packed), {n, k});
}

}  // namespace

void bind_quantize(py::module_& m) {
  m.def("pack_matrix", &pack, py::arg("w"), py::arg("format"), "Quantises (round to nearest) and packs [N, K].");
  m.def("pack_int4", &pack_ready_int4, py::arg("q"), py::arg("scales"), py::arg("format"), py::kw_only(),
        py::arg("zeros") = py::none(), py::arg("offsets") = py::none(), "Packs ready int4 values [N, K] unchanged.");
  m.def("unpack_matrix", &unpack, py::arg("parts"), py::arg("format"), py::arg("n"), py::arg("k"),
        "The matrix [N, K] that packed parts stand for.");
}

}  // namespace vila::bindings
