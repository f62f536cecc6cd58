// The public calls of packed.hpp: argument checks, then the layout's algorithm on the context's threads.
#include "codec/packed_matrix.hpp"
#include "codec/tcatbe.hpp"
#include "core/checked.hpp"
#include "cpu/context_impl.hpp"
#include <tersor/packed.hpp>

namespace tersor {
namespace {

using codec_detail::matrix_place;
using cpu::as_u8;
using cpu::engine_of;
using cpu::guarded;

constexpr std::uint64_t kValueBytes = 2;

bool takes(matrix_layout layout, dtype type) noexcept {
  return type == dtype::bf16 || (type == dtype::f16 && layout == matrix_layout::packed);
}

/// A matrix's place in a span of `n_bytes`; `wanted` gets the bytes from its first to its last value.
template <class Byte>
result<matrix_place<Byte>> place_of(Byte* data, std::uint64_t rows, std::uint64_t cols, matrix_order order,
                                    std::uint64_t stride, std::uint64_t& wanted) {
  const bool by_rows = order == matrix_order::row_major;
  const std::uint64_t n_lines = by_rows ? rows : cols, length = by_rows ? cols : rows;
  if (rows == 0 || cols == 0) return fail(errc::invalid_argument, "a matrix of no values");
  if (stride == 0) stride = length;
  if (stride < length) return fail(errc::invalid_argument, "the stride is smaller than a row or column");
  const auto before_last = core::checked_mul(n_lines - 1, stride);
  const auto values = before_last ? core::checked_add(*before_last, length) : std::nullopt;
  const auto bytes = values ? core::checked_mul(*values, kValueBytes) : std::nullopt;
  if (!bytes) return fail(errc::size_overflow, "matrix size leaves 64 bits");
  wanted = *bytes;
  return matrix_place<Byte>{.data = data, .rows = rows, .cols = cols, .by_rows = by_rows, .stride = stride};
}

result<matrix_place<const std::uint8_t>> check_source(const matrix_view& src, const pack_options& options) {
  if (options.layout != matrix_layout::packed && options.layout != matrix_layout::tcatbe)
    return fail(errc::invalid_argument, "unknown matrix layout");
  if (!takes(options.layout, src.type)) {
    return fail(errc::unsupported, "layout " + std::string(to_string(options.layout)) + " does not take " +
                                       std::string(to_string(src.type)));
  }
  std::uint64_t wanted = 0;
  TERSOR_TRY(const auto place,
             place_of(as_u8(src.data).data(), src.rows, src.cols, src.order, src.stride, wanted));
  const bool dense = place.stride == (place.by_rows ? place.cols : place.rows);
  if (dense ? src.data.size() != wanted : src.data.size() < wanted) {
    return fail(errc::invalid_argument,
                "rows, columns and stride do not give " + std::to_string(src.data.size()) + " bytes");
  }
  return place;
}

result<std::uint64_t> pack_checked(const context& ctx, const matrix_view& src, std::span<std::byte> dst,
                                   const pack_options& options) {
  TERSOR_TRY(const auto place, check_source(src, options));
  if (options.layout == matrix_layout::tcatbe)
    return codec_detail::tcatbe_pack(ctx.get().pool, place, as_u8(dst));
  const auto inline_escapes = codec_detail::resolve_inline_escapes(options.inline_escapes);
  if (!inline_escapes) return fail(errc::invalid_argument, "inline escapes: a multiple of 8 up to 1024");
  return codec_detail::pack_blocks(engine_of(ctx), src.type, place, *inline_escapes, as_u8(dst));
}

}  // namespace

std::string_view to_string(matrix_layout layout) noexcept {
  switch (layout) {
    case matrix_layout::packed:
      return "packed";
    case matrix_layout::tcatbe:
      return "tcatbe";
  }
  return "unknown";
}

std::optional<matrix_layout> parse_matrix_layout(std::string_view name) noexcept {
  for (const matrix_layout layout : {matrix_layout::packed, matrix_layout::tcatbe}) {
    if (name == to_string(layout)) return layout;
  }
  return std::nullopt;
}

std::uint64_t pack_bound(dtype type, std::uint64_t rows, std::uint64_t cols,
                         const pack_options& options) noexcept {
  if (!takes(options.layout, type) || rows == 0 || cols == 0) return 0;
  if (options.layout == matrix_layout::tcatbe) return codec_detail::tcatbe_bound(rows, cols);
  const auto inline_escapes = codec_detail::resolve_inline_escapes(options.inline_escapes);
  if (!inline_escapes) return 0;
  return codec_detail::packed_bound(type, rows, cols, *inline_escapes);
}

result<std::uint64_t> pack_into(const context& ctx, const matrix_view& src, std::span<std::byte> dst,
                                const pack_options& options) {
  return guarded([&] { return pack_checked(ctx, src, dst, options); });
}

result<std::vector<std::byte>> pack(const context& ctx, const matrix_view& src, const pack_options& options) {
  return guarded([&]() -> result<std::vector<std::byte>> {
    TERSOR_TRY(const auto place, check_source(src, options));
    const std::uint64_t bound = pack_bound(src.type, place.rows, place.cols, options);
    if (bound == 0) return fail(errc::invalid_argument, "options or matrix size are not allowed");
    // Trained weights take about 0.7 of their size; room for every value as an escape is asked for only when
    // it is needed.
    std::vector<std::byte> bytes(std::min(bound, place.rows * place.cols * kValueBytes));
    auto size = pack_checked(ctx, src, bytes, options);
    if (!size && size.error().code == errc::destination_too_small) {
      bytes.resize(bound);
      size = pack_checked(ctx, src, bytes, options);
    }
    if (!size) return tl::unexpected<error>(std::move(size).error());
    bytes.resize(*size);
    return bytes;
  });
}

result<matrix_info> inspect_packed(std::span<const std::byte> header) {
  return guarded([&] { return codec_detail::read_matrix_header(as_u8(header)); });
}

status unpack_into(const context& ctx, std::span<const std::byte> packed_bytes, std::span<std::byte> dst,
                   matrix_order order, std::uint64_t stride) {
  return guarded([&]() -> status {
    TERSOR_TRY(const matrix_info info, codec_detail::read_matrix_header(as_u8(packed_bytes)));
    if (packed_bytes.size() < info.n_bytes) {
      return fail_at(errc::truncated,
                     "the packed matrix declares " + std::to_string(info.n_bytes) + " bytes, " +
                         std::to_string(packed_bytes.size()) + " are there",
                     packed_bytes.size());
    }
    if (packed_bytes.size() > info.n_bytes)
      return fail_at(errc::malformed, "bytes after the end of the packed matrix", info.n_bytes);
    std::uint64_t wanted = 0;
    TERSOR_TRY(const auto place, place_of(as_u8(dst).data(), info.rows, info.cols, order, stride, wanted));
    if (dst.size() < wanted) {
      return fail(errc::destination_too_small, "destination has " + std::to_string(dst.size()) +
                                                   " bytes, the matrix " + std::to_string(wanted));
    }
    if (info.layout == matrix_layout::tcatbe)
      return codec_detail::tcatbe_unpack(ctx.get().pool, info, as_u8(packed_bytes), place);
    return codec_detail::unpack_blocks(engine_of(ctx), info, as_u8(packed_bytes), place);
  });
}

}  // namespace tersor
