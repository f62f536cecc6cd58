// Packed matrices on the CPU.
#include <cstring>

#include "common.hpp"

namespace tersor::python {
namespace {

/// Only the overflow section varies in size between matrices of one shape, and products only need to know
/// where it begins and that reading stays inside the buffer.
matrix_info stretched(const matrix_info& info, std::uint64_t capacity) {
  constexpr std::uint64_t kSectionAlignment = 128;
  const std::uint64_t digests = info.n_bytes - info.digests_at;
  if (info.layout != matrix_layout::packed || capacity < info.overflow_at + digests)
    raise({.code = errc::invalid_argument, .message = "the buffer holds no packed matrix of this shape"});
  matrix_info any = info;
  const std::uint64_t room = (capacity - info.overflow_at - digests) / kSectionAlignment * kSectionAlignment;
  any.n_overflow = room / 4;
  any.digests_at = info.overflow_at + room;
  any.n_bytes = any.digests_at + digests;
  any.digest = 0;
  return any;
}

void bind_matrix_info(nb::module_& m) {
  nb::class_<matrix_info>(m, "MatrixInfo", "What the header of a packed matrix says.")
      .def_prop_ro("layout", [](const matrix_info& i) { return to_string(i.layout); })
      .def_prop_ro("dtype", [](const matrix_info& i) { return to_string(i.type); })
      .def_ro("rows", &matrix_info::rows)
      .def_ro("cols", &matrix_info::cols)
      .def_ro("n_bytes", &matrix_info::n_bytes)
      .def_ro("block_bytes", &matrix_info::block_bytes)
      .def_ro("inline_escapes", &matrix_info::inline_escapes)
      .def_ro("n_overflow", &matrix_info::n_overflow)
      .def_ro("blocks_at", &matrix_info::blocks_at)
      .def_ro("overflow_at", &matrix_info::overflow_at)
      .def_ro("digests_at", &matrix_info::digests_at)
      .def_ro("digest", &matrix_info::digest)
      .def_prop_ro("bits_per_weight", &matrix_info::bits_per_weight)
      .def(
          "stretched", &stretched, nb::arg("capacity"),
          "The description of any matrix of this shape, layout and number of inline escapes in a buffer of "
          "`capacity` bytes: its overflow section counts as the largest that fits. Good for products and for "
          "unpacking without a verdict.")
      .def("__repr__", [](const matrix_info& i) {
        return "tersor.MatrixInfo(" + std::string(to_string(i.layout)) + ", " +
               std::string(to_string(i.type)) + ", " + std::to_string(i.rows) + " x " +
               std::to_string(i.cols) + ", " + std::to_string(i.n_bytes) + " bytes)";
      });
  m.def(
      "inspect_packed", [](const bytes_in& header) { return unwrap(inspect_packed(span_of(header))); },
      nb::arg("header").noconvert());
}

}  // namespace

void bind_packed(nb::module_& m) {
  bind_matrix_info(m);
  m.attr("DEFAULT_INLINE_ESCAPES") = kDefaultInlineEscapes;
  m.def(
      "pack_bound",
      [](std::string_view type, std::uint64_t rows, std::uint64_t cols, std::string_view layout,
         std::uint32_t inline_escapes) {
        return pack_bound(dtype_of(type), rows, cols,
                          {.layout = layout_of(layout), .inline_escapes = inline_escapes});
      },
      nb::arg("dtype"), nb::arg("rows"), nb::arg("cols"), nb::arg("layout") = "packed",
      nb::arg("inline_escapes") = 0);
  m.def(
      "pack",
      [](const held_context& held, const bytes_in& data, std::string_view type, std::uint64_t rows,
         std::uint64_t cols, std::string_view layout, std::uint32_t inline_escapes, bool column_major,
         std::uint64_t stride) {
        const context& ctx = held.get();
        const matrix_view view = {.type = dtype_of(type),
                                  .rows = rows,
                                  .cols = cols,
                                  .order = order_of(column_major),
                                  .stride = stride,
                                  .data = span_of(data)};
        const pack_options options = {.layout = layout_of(layout), .inline_escapes = inline_escapes};
        return buffer(unlocked([&] { return pack(ctx, view, options); }));
      },
      nb::arg("ctx"), nb::arg("data").noconvert(), nb::arg("dtype"), nb::arg("rows"), nb::arg("cols"),
      nb::arg("layout") = "packed", nb::arg("inline_escapes") = 0, nb::arg("column_major") = false,
      nb::arg("stride") = 0);
  m.def(
      "unpack_into",
      [](const held_context& held, const bytes_in& packed, const bytes_out& dst, bool column_major,
         std::uint64_t stride) {
        const context& ctx = held.get();
        const auto from = span_of(packed);
        const auto to = span_of(dst);
        unlocked([&] { return unpack_into(ctx, from, to, order_of(column_major), stride); });
      },
      nb::arg("ctx"), nb::arg("packed").noconvert(), nb::arg("dst").noconvert(),
      nb::arg("column_major") = false, nb::arg("stride") = 0);
}

}  // namespace tersor::python
