// Packed matrices on the GPU: products, packing, unpacking.
#include "device.hpp"
#include <tersor/gemm.hpp>

namespace tersor::python {
namespace {

cuda::gemm_plan plan_of(std::string_view text) {
  if (text.empty()) return {};
  if (const auto plan = cuda::parse_gemm_plan(text)) return *plan;
  raise({.code = errc::invalid_argument, .message = "not a plan: '" + std::string(text) + "'"});
}

cuda::gemm_shape shape_of(const matrix_info& info, std::uint64_t n, std::uint32_t groups = 1) {
  return {info.layout, info.type, info.rows, info.cols, n, groups};
}

void bind_plans(nb::module_& m) {
  m.def(
      "plan_gemm",
      [](const matrix_info& info, std::uint64_t n, std::uint32_t groups) {
        return cuda::to_string(
            cuda::plan_gemm(shape_of(info, n, groups), unwrap(cuda::current_gemm_device())));
      },
      nb::arg("info"), nb::arg("n"), nb::arg("groups") = 1);
  m.def(
      "gemm_workspace_size",
      [](const matrix_info& info, std::uint64_t n, std::string_view plan) {
        return cuda::gemm_workspace_size(shape_of(info, n), plan_of(plan),
                                         unwrap(cuda::current_gemm_device()));
      },
      nb::arg("info"), nb::arg("n"), nb::arg("plan") = "");
}

void bind_products(nb::module_& m) {
  m.def(
      "gemm",
      [](const matrix_info& info, address data, address x, std::uint64_t ldx, address y, std::uint64_t ldy,
         std::uint64_t n, address bias, bool accumulate, bool overlap_previous, std::string_view plan,
         address ws, std::uint64_t ws_bytes, address stream) {
        const cuda::gemm_options options = {.bias_dev = pointer(bias),
                                            .accumulate = accumulate,
                                            .overlap_previous = overlap_previous,
                                            .plan = plan_of(plan)};
        check(cuda::gemm_async({info, pointer(data)}, pointer(x), ldx, pointer(y), ldy, n, options,
                               {pointer(ws), ws_bytes}, stream_of(stream)));
      },
      nb::arg("info"), nb::arg("data").noconvert(), nb::arg("x"), nb::arg("ldx"), nb::arg("y"),
      nb::arg("ldy"), nb::arg("n"), nb::arg("bias") = 0, nb::arg("accumulate") = false,
      nb::arg("overlap_previous") = false, nb::arg("plan") = "", nb::arg("ws") = 0, nb::arg("ws_bytes") = 0,
      nb::arg("stream") = 0);
  m.def(
      "grouped_gemm",
      [](const matrix_info& info, std::uint32_t n_groups, address weights, address first_token,
         std::uint64_t max_tokens, std::uint64_t n_tokens, address x, std::uint64_t ldx, address y,
         std::uint64_t ldy, address bias, address stream) {
        const cuda::gemm_groups groups = {n_groups, pointer<const void* const>(weights),
                                          pointer<const std::int32_t>(first_token), max_tokens, n_tokens};
        const cuda::gemm_options options = {.bias_dev = pointer(bias)};
        check(cuda::grouped_gemm_async(info, groups, pointer(x), ldx, pointer(y), ldy, options, {},
                                       stream_of(stream)));
      },
      nb::arg("info"), nb::arg("n_groups"), nb::arg("weights"), nb::arg("first_token"), nb::arg("max_tokens"),
      nb::arg("n_tokens"), nb::arg("x"), nb::arg("ldx"), nb::arg("y"), nb::arg("ldy"), nb::arg("bias") = 0,
      nb::arg("stream") = 0);
}

void bind_packing(nb::module_& m) {
  m.def(
      "pack_workspace_size",
      [](std::string_view type, std::uint64_t rows, std::uint64_t cols, std::uint32_t inline_escapes,
         std::string_view layout) {
        return cuda::pack_workspace_size(dtype_of(type), rows, cols,
                                         {.layout = layout_of(layout), .inline_escapes = inline_escapes});
      },
      nb::arg("dtype"), nb::arg("rows"), nb::arg("cols"), nb::arg("inline_escapes") = 0,
      nb::arg("layout") = "packed");
  m.def(
      "pack",
      [](std::string_view type, std::uint64_t rows, std::uint64_t cols, address src, std::uint64_t src_bytes,
         bool column_major, std::uint64_t stride, address dst, std::uint64_t capacity,
         std::uint32_t inline_escapes, std::string_view layout, address result, address ws,
         std::uint64_t ws_bytes, address stream) {
        const matrix_view view = {.type = dtype_of(type),
                                  .rows = rows,
                                  .cols = cols,
                                  .order = order_of(column_major),
                                  .stride = stride,
                                  .data = {pointer<const std::byte>(src), src_bytes}};
        check(cuda::pack_async(
            view, pointer(dst), capacity, {.layout = layout_of(layout), .inline_escapes = inline_escapes},
            pointer<cuda::matrix_result>(result), {pointer(ws), ws_bytes}, stream_of(stream)));
      },
      nb::arg("dtype"), nb::arg("rows"), nb::arg("cols"), nb::arg("src"), nb::arg("src_bytes"),
      nb::arg("column_major"), nb::arg("stride"), nb::arg("dst").noconvert(), nb::arg("capacity"),
      nb::arg("inline_escapes"), nb::arg("layout"), nb::arg("result"), nb::arg("ws"), nb::arg("ws_bytes"),
      nb::arg("stream"));
  m.def(
      "unpack",
      [](const matrix_info& info, address data, address dst, bool column_major, std::uint64_t stride,
         address result, address stream) {
        check(cuda::unpack_async({info, pointer(data)}, pointer(dst), order_of(column_major), stride,
                                 pointer<cuda::matrix_result>(result), stream_of(stream)));
      },
      nb::arg("info"), nb::arg("data").noconvert(), nb::arg("dst").noconvert(),
      nb::arg("column_major") = false, nb::arg("stride") = 0, nb::arg("result") = 0, nb::arg("stream") = 0);
}

}  // namespace

void bind_gemm(nb::module_& m) {
  static_assert(sizeof(cuda::matrix_result) == 16);
  m.attr("MATRIX_RESULT_BYTES") = sizeof(cuda::matrix_result);
  bind_plans(m);
  bind_products(m);
  bind_packing(m);
}

}  // namespace tersor::python
