// pack_async and unpack_async: argument checks and launches.
#include <algorithm>

#include "codec/packed_matrix.hpp"
#include "core/checked.hpp"
#include "cuda/gemm/matrix_checks.hpp"
#include "cuda/runtime/calls.hpp"

namespace tersor::cuda {
namespace {

using matrix_sections = codec_detail::packed_sections;

static_assert(sizeof(matrix_result) == sizeof(matrix_result_slot));
static_assert(sizeof(pack_totals) <= codec_detail::packed_geometry::kSectionAlignment);

matrix_blocks blocks_of(const matrix_sections& sections, std::uint64_t rows, std::uint64_t cols,
                        matrix_order order, std::uint64_t stride, const void* data_dev) {
  return {.rows = rows,
          .cols = cols,
          .stride = stride,
          .row_blocks = static_cast<std::uint32_t>(sections.row_blocks),
          .col_blocks = static_cast<std::uint32_t>(sections.col_blocks),
          .n_blocks = static_cast<std::uint32_t>(sections.n_blocks),
          .column_major = order == matrix_order::column_major,
          .in_eights = reinterpret_cast<std::uintptr_t>(data_dev) % 16 == 0 && stride % 8 == 0};
}

std::uint32_t ctas_for(const matrix_blocks& blocks, std::uint32_t processors, std::uint32_t each) {
  const std::uint64_t at_once = std::uint64_t{processors} * each;
  return static_cast<std::uint32_t>(std::min(core::ceil_div(blocks.n_blocks, kWarps), at_once));
}

/// The parts of the workspace.
struct pack_places {
  std::uint64_t group_sums = 0, digests = 0, places = 0;
  std::uint64_t cleared_bytes = 0, n_bytes = 0;
};
pack_places place_workspace(std::uint64_t n_blocks) noexcept {
  constexpr std::uint64_t kAlignment = codec_detail::packed_geometry::kSectionAlignment;
  pack_places p;
  p.group_sums = kAlignment;
  p.cleared_bytes = p.group_sums + 8 * core::ceil_div(n_blocks, kPlacedBlocks);
  p.digests = core::align_up(p.cleared_bytes, kAlignment);
  p.places = core::align_up(p.digests + 8 * n_blocks, kAlignment);
  p.n_bytes = core::align_up(p.places + 4 * n_blocks, kAlignment);
  return p;
}

pack_launch plan_pack(const matrix_view& src, const matrix_blocks& blocks, const matrix_sections& sections,
                      std::uint32_t inline_escapes, std::byte* ws) {
  pack_launch launch;
  launch.blocks = blocks;
  launch.src = reinterpret_cast<const std::uint16_t*>(src.data.data());
  launch.overflow_at = sections.overflow_at;
  launch.block_bytes = sections.block_bytes;
  launch.inline_escapes = inline_escapes;
  launch.half = src.type == dtype::f16;
  using namespace codec_detail;
  launch.header[kWordMagic] = first_matrix_word(matrix_layout::packed, src.type);
  launch.header[kWordRows] = src.rows;
  launch.header[kWordCols] = src.cols;
  launch.header[kWordParameters] = sections.block_bytes | std::uint64_t{inline_escapes} << 32;
  launch.header[kWordBlocksAt] = packed_geometry::kHeaderBytes;
  launch.header[kWordOverflowAt] = sections.overflow_at;
  const pack_places places = place_workspace(sections.n_blocks);
  launch.totals = reinterpret_cast<pack_totals*>(ws);
  launch.group_sums = reinterpret_cast<std::uint64_t*>(ws + places.group_sums);
  launch.digests = reinterpret_cast<std::uint64_t*>(ws + places.digests);
  launch.places = reinterpret_cast<std::uint32_t*>(ws + places.places);
  return launch;
}

status run_pack(const gpu_backend& backend, const pack_launch& launch, std::uint32_t processors, stream s) {
  const pack_places places = place_workspace(launch.blocks.n_blocks);
  TERSOR_CHECK(
      check_launch(backend, backend.clear(launch.totals, places.cleared_bytes, s), "clearing the workspace"));
  const std::uint32_t blocks = ctas_for(launch.blocks, processors, kPackCtas);
  const auto groups = static_cast<std::uint32_t>(core::ceil_div(launch.blocks.n_blocks, kPlacedBlocks));
  for (int pass = 0; pass < kPackPasses; ++pass) {
    TERSOR_CHECK(check_launch(backend, backend.pack_matrix(pass, launch, pass == 1 ? groups : blocks, s),
                              "packing a matrix"));
  }
  return {};
}

}  // namespace

std::uint64_t pack_workspace_size(dtype type, std::uint64_t rows, std::uint64_t cols,
                                  const pack_options& options) noexcept {
  if (options.layout == matrix_layout::tcatbe) return sizeof(tcatbe_pack_totals);
  const auto inline_escapes = codec_detail::resolve_inline_escapes(options.inline_escapes);
  if (!inline_escapes) return 0;
  const auto sections = plan_sections(type, rows, cols, *inline_escapes, 0);
  return sections ? place_workspace(sections->n_blocks).n_bytes : 0;
}

status pack_async(const matrix_view& src_dev, void* dst_dev, std::uint64_t capacity,
                  const pack_options& options, matrix_result* result_dev, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  const auto inline_escapes = codec_detail::resolve_inline_escapes(options.inline_escapes);
  if (!inline_escapes) return fail(errc::invalid_argument, "inline escapes are a multiple of 8 up to 1,024");
  TERSOR_TRY(const matrix_sections sections,
             plan_sections(src_dev.type, src_dev.rows, src_dev.cols, *inline_escapes, 0));
  TERSOR_TRY(const std::uint64_t stride,
             check_plain(src_dev.rows, src_dev.cols, src_dev.order, src_dev.stride, src_dev.data.data()));
  TERSOR_CHECK(check_source(src_dev, stride));
  TERSOR_CHECK(check_packed_address(dst_dev));
  TERSOR_CHECK(check_result_address(result_dev, true));
  if (options.layout == matrix_layout::tcatbe)
    return pack_tcatbe(src_dev, stride, dst_dev, capacity, result_dev, ws, s);
  if (options.layout != matrix_layout::packed) return fail(errc::unsupported, "unknown matrix layout");
  if (capacity < sections.n_bytes) {
    return fail(errc::destination_too_small, "the packed matrix has at least " +
                                                 std::to_string(sections.n_bytes) +
                                                 " bytes, its capacity is " + std::to_string(capacity));
  }
  TERSOR_CHECK(check_workspace(ws, place_workspace(sections.n_blocks).n_bytes));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  const matrix_blocks blocks =
      blocks_of(sections, src_dev.rows, src_dev.cols, src_dev.order, stride, src_dev.data.data());
  pack_launch launch =
      plan_pack(src_dev, blocks, sections, *inline_escapes, static_cast<std::byte*>(ws.data_dev));
  launch.packed = static_cast<std::uint8_t*>(dst_dev);
  launch.capacity = capacity;
  launch.result = reinterpret_cast<matrix_result_slot*>(result_dev);
  return run_pack(*backend, launch, processors, s);
}

status unpack_async(const packed_weight& w, void* dst_dev, matrix_order order, std::uint64_t stride,
                    matrix_result* result_dev, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_CHECK(check_matrix(w.info));
  TERSOR_TRY(const std::uint64_t step, check_plain(w.info.rows, w.info.cols, order, stride, dst_dev));
  TERSOR_CHECK(check_packed_address(w.data_dev));
  TERSOR_CHECK(check_result_address(result_dev, false));
  if (w.info.layout == matrix_layout::tcatbe) return unpack_tcatbe(w, dst_dev, order, step, result_dev, s);
  TERSOR_TRY(const matrix_sections sections,
             plan_sections(w.info.type, w.info.rows, w.info.cols, w.info.inline_escapes, w.info.n_overflow));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  unpack_launch launch;
  launch.blocks = blocks_of(sections, w.info.rows, w.info.cols, order, step, dst_dev);
  launch.packed = static_cast<const std::uint8_t*>(w.data_dev);
  launch.dst = static_cast<std::uint16_t*>(dst_dev);
  launch.result = reinterpret_cast<matrix_result_slot*>(result_dev);
  launch.n_bytes = sections.n_bytes;
  launch.overflow_at = sections.overflow_at;
  launch.n_overflow = w.info.n_overflow;
  launch.digests_at = sections.digests_at;
  launch.block_bytes = sections.block_bytes;
  launch.inline_escapes = w.info.inline_escapes;
  launch.half = w.info.type == dtype::f16;
  const std::uint32_t ctas = ctas_for(launch.blocks, processors, kUnpackCtas);
  return check_launch(*backend, backend->unpack_matrix(launch, ctas, s), "unpacking a matrix");
}

}  // namespace tersor::cuda
