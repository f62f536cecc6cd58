// What the calls on packed matrices translate, on the host and on a GPU.
#pragma once

#include "c_api/call.hpp"
#include <tersor/packed.hpp>
#include <tersor/tersor.h>

namespace tersor::c_api {

[[nodiscard]] inline result<matrix_layout> to_layout(std::int32_t id) {
  if (id == TERSOR_LAYOUT_PACKED) return matrix_layout::packed;
  if (id == TERSOR_LAYOUT_TCATBE) return matrix_layout::tcatbe;
  return fail(errc::invalid_argument, "unknown matrix layout number");
}

[[nodiscard]] inline result<matrix_order> to_order(std::int32_t id) {
  if (id == TERSOR_ROW_MAJOR) return matrix_order::row_major;
  if (id == TERSOR_COLUMN_MAJOR) return matrix_order::column_major;
  return fail(errc::invalid_argument, "unknown matrix order number");
}

[[nodiscard]] inline result<pack_options> to_pack_options(std::int32_t layout, std::uint32_t inline_escapes) {
  TERSOR_TRY(const auto which, to_layout(layout));
  return pack_options{.layout = which, .inline_escapes = inline_escapes};
}

[[nodiscard]] inline result<matrix_view> to_view(const tersor_matrix& in) {
  matrix_view view{.rows = in.rows, .cols = in.cols, .stride = in.stride};
  TERSOR_TRY(view.type, to_dtype(in.dtype));
  TERSOR_TRY(view.order, to_order(in.order));
  TERSOR_TRY(view.data, to_span(in.data, in.n_bytes));
  return view;
}

[[nodiscard]] inline result<matrix_info> to_info(const tersor_matrix_info& in) {
  matrix_info info{.rows = in.rows,
                   .cols = in.cols,
                   .n_bytes = in.n_bytes,
                   .block_bytes = in.block_bytes,
                   .inline_escapes = in.inline_escapes,
                   .n_overflow = in.n_overflow,
                   .blocks_at = in.blocks_at,
                   .overflow_at = in.overflow_at,
                   .digests_at = in.digests_at,
                   .digest = in.digest,
                   .first_symbol = in.first_symbol};
  TERSOR_TRY(info.layout, to_layout(in.layout));
  TERSOR_TRY(info.type, to_dtype(in.dtype));
  return info;
}

[[nodiscard]] inline tersor_matrix_info from_info(const matrix_info& info) noexcept {
  return {.layout = static_cast<std::int32_t>(info.layout),
          .dtype = static_cast<std::int32_t>(info.type),
          .rows = info.rows,
          .cols = info.cols,
          .n_bytes = info.n_bytes,
          .block_bytes = info.block_bytes,
          .inline_escapes = info.inline_escapes,
          .n_overflow = info.n_overflow,
          .blocks_at = info.blocks_at,
          .overflow_at = info.overflow_at,
          .digests_at = info.digests_at,
          .digest = info.digest,
          .first_symbol = info.first_symbol,
          .reserved = 0};
}

}  // namespace tersor::c_api
