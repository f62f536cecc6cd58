// The C ABI of tersor/packed.hpp.
#include "c_api/handle.hpp"
#include "c_api/matrix_types.hpp"

using tersor::result;
using tersor::status;
using tersor::c_api::require;
using tersor::c_api::run;
using tersor::c_api::size_or_zero;
using tersor::c_api::to_dtype;
using tersor::c_api::to_order;
using tersor::c_api::to_pack_options;
using tersor::c_api::to_span;
using tersor::c_api::to_view;

extern "C" {

std::uint64_t tersor_pack_bound(std::int32_t layout, std::uint32_t inline_escapes, std::int32_t dtype,
                                std::uint64_t rows, std::uint64_t cols) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto options, to_pack_options(layout, inline_escapes));
    TERSOR_TRY(const auto type, to_dtype(dtype));
    return tersor::pack_bound(type, rows, cols, options);
  });
}

std::int32_t tersor_pack(const tersor_context* ctx, std::int32_t layout, std::uint32_t inline_escapes,
                         const tersor_matrix* src, void* dst, std::uint64_t dst_bytes,
                         std::uint64_t* packed_bytes) {
  return run([&]() -> status {
    TERSOR_CHECK(require(ctx, src, packed_bytes));
    TERSOR_TRY(const auto options, to_pack_options(layout, inline_escapes));
    TERSOR_TRY(const auto view, to_view(*src));
    TERSOR_TRY(const auto to, to_span(dst, dst_bytes));
    TERSOR_TRY(*packed_bytes, tersor::pack_into(ctx->ctx, view, to, options));
    return {};
  });
}

std::int32_t tersor_inspect_packed(const void* header, std::uint64_t n_bytes, tersor_matrix_info* info) {
  return run([&]() -> status {
    TERSOR_CHECK(require(info));
    TERSOR_TRY(const auto bytes, to_span(header, n_bytes));
    TERSOR_TRY(const auto found, tersor::inspect_packed(bytes));
    *info = tersor::c_api::from_info(found);
    return {};
  });
}

std::int32_t tersor_unpack(const tersor_context* ctx, const void* packed, std::uint64_t n_bytes,
                           std::int32_t order, std::uint64_t stride, void* dst, std::uint64_t dst_bytes) {
  return run([&]() -> status {
    TERSOR_CHECK(require(ctx));
    TERSOR_TRY(const auto bytes, to_span(packed, n_bytes));
    TERSOR_TRY(const auto how, to_order(order));
    TERSOR_TRY(const auto to, to_span(dst, dst_bytes));
    return tersor::unpack_into(ctx->ctx, bytes, to, how, stride);
  });
}

}  // extern "C"
