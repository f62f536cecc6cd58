#include "cuda/gemm/matrix_checks.hpp"

#include "codec/tcatbe.hpp"
#include "core/checked.hpp"

namespace tersor::cuda {
namespace {

/// Block numbers and what kernels add to them stay inside 32 bits.
constexpr std::uint64_t kMaxBlocks = std::uint64_t{1} << 31;

status check_tcatbe(const matrix_info& info) {
  if (info.type != dtype::bf16) return fail(errc::unsupported, "layout tcatbe is for BF16");
  const auto sections = codec_detail::checked_tcatbe_sections(info.rows, info.cols);
  if (!sections || sections->n_tiles > kMaxTcatbeGpuTiles)
    return fail(errc::unsupported, "more tiles than a GPU counts");
  if (info.blocks_at != sections->bitmaps_at || info.digests_at != sections->digests_at ||
      info.overflow_at < sections->coded_at || info.overflow_at > info.n_bytes) {
    return fail(errc::invalid_argument, "the matrix's info contradicts itself");
  }
  return {};
}

}  // namespace

result<codec_detail::packed_sections> plan_sections(dtype type, std::uint64_t rows, std::uint64_t cols,
                                                    std::uint32_t inline_escapes, std::uint64_t n_overflow) {
  if (type != dtype::bf16 && type != dtype::f16)
    return fail(errc::unsupported, "matrices are packed of BF16 and FP16");
  if (rows == 0 || cols == 0) return fail(errc::invalid_argument, "a packed matrix is never empty");
  const auto sections = codec_detail::make_packed_sections(type, rows, cols, inline_escapes, n_overflow);
  if (!sections) return fail(errc::size_overflow, "the matrix's sizes leave 64 bits");
  if (sections->n_blocks >= kMaxBlocks) return fail(errc::unsupported, "more blocks than a GPU counts");
  return *sections;
}

status check_matrix(const matrix_info& info) {
  if (info.rows == 0 || info.cols == 0) return fail(errc::invalid_argument, "a packed matrix is never empty");
  if (info.layout == matrix_layout::tcatbe) return check_tcatbe(info);
  if (info.layout != matrix_layout::packed) return fail(errc::unsupported, "unknown matrix layout");
  TERSOR_TRY(const auto sections,
             plan_sections(info.type, info.rows, info.cols, info.inline_escapes, info.n_overflow));
  const bool same = info.inline_escapes != 0 &&
                    codec_detail::resolve_inline_escapes(info.inline_escapes) == info.inline_escapes &&
                    info.n_overflow <= 0xffffffffu &&
                    info.blocks_at == codec_detail::packed_geometry::kHeaderBytes &&
                    info.block_bytes == sections.block_bytes && info.overflow_at == sections.overflow_at &&
                    info.digests_at == sections.digests_at && info.n_bytes == sections.n_bytes;
  if (!same) return fail(errc::invalid_argument, "the matrix's info contradicts itself");
  return {};
}

status check_packed_address(const void* packed) {
  if (packed == nullptr ||
      reinterpret_cast<std::uintptr_t>(packed) % codec_detail::packed_geometry::kSectionAlignment != 0) {
    return fail(errc::invalid_argument, "a packed matrix's address is null or not 128-byte aligned");
  }
  return {};
}

status check_result_address(const matrix_result* result, bool is_needed) {
  if ((result == nullptr && is_needed) || reinterpret_cast<std::uintptr_t>(result) % 8 != 0)
    return fail(errc::invalid_argument, "the result's address is null or not aligned");
  return {};
}

result<std::uint64_t> check_plain(std::uint64_t rows, std::uint64_t cols, matrix_order order,
                                  std::uint64_t stride, const void* data_dev) {
  if (reinterpret_cast<std::uintptr_t>(data_dev) % 2 != 0)
    return fail(errc::invalid_argument, "the matrix is not aligned to its values");
  const bool column_major = order == matrix_order::column_major;
  const std::uint64_t inner = column_major ? rows : cols, outer = column_major ? cols : rows;
  const std::uint64_t step = stride == 0 ? inner : stride;
  if (step < inner) return fail(errc::invalid_argument, "the stride is less than a row or column");
  const auto values = core::checked_mul(outer, step);
  if (!values || !core::checked_mul(*values, 2))
    return fail(errc::size_overflow, "the matrix's sizes leave 64 bits");
  return step;
}

status check_source(const matrix_view& src, std::uint64_t stride) {
  if (src.data.data() == nullptr) return fail(errc::invalid_argument, "the matrix's address is null");
  const bool column_major = src.order == matrix_order::column_major;
  const std::uint64_t inner = column_major ? src.rows : src.cols, outer = column_major ? src.cols : src.rows;
  if (src.data.size() < 2 * ((outer - 1) * stride + inner))
    return fail(errc::invalid_argument, "the matrix has fewer bytes than rows, columns and stride ask for");
  return {};
}

}  // namespace tersor::cuda
