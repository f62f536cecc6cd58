// Packing and unpacking matrices of layout tcatbe.
#include <algorithm>

#include "codec/tcatbe.hpp"
#include "cuda/gemm/matrix_checks.hpp"
#include "cuda/runtime/calls.hpp"

namespace tersor::cuda {
namespace {

tcatbe_values values_of(std::uint64_t rows, std::uint64_t cols, matrix_order order, std::uint64_t stride,
                        const void* data) {
  return {.rows = rows,
          .cols = cols,
          .stride = stride,
          .column_major = order == matrix_order::column_major,
          .in_eights = reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 8 == 0};
}

std::uint32_t ctas_for(std::uint32_t n_tiles, std::uint32_t processors) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(n_tiles, std::uint64_t{processors} * kTcatbeUnpackCtas));
}

}  // namespace

status pack_tcatbe(const matrix_view& src, std::uint64_t stride, void* dst, std::uint64_t capacity,
                   matrix_result* result, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  if (src.type != dtype::bf16) return fail(errc::unsupported, "layout tcatbe is for BF16");
  const auto sections = codec_detail::checked_tcatbe_sections(src.rows, src.cols);
  if (!sections || sections->n_tiles > kMaxTcatbeGpuTiles)
    return fail(errc::unsupported, "more tiles than a GPU counts");
  if (capacity < sections->coded_at) {
    return fail(errc::destination_too_small, "the packed matrix has at least " +
                                                 std::to_string(sections->coded_at) +
                                                 " bytes, its capacity is " + std::to_string(capacity));
  }
  TERSOR_CHECK(check_workspace(ws, sizeof(tcatbe_pack_totals)));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  tcatbe_pack_launch launch;
  launch.matrix = make_tcatbe_matrix(src.rows, src.cols, 0, 0, 0);
  launch.values = values_of(src.rows, src.cols, src.order, stride, src.data.data());
  launch.src = reinterpret_cast<const std::uint16_t*>(src.data.data());
  launch.packed = static_cast<std::uint8_t*>(dst);
  launch.capacity = capacity;
  launch.result = reinterpret_cast<matrix_result_slot*>(result);
  launch.first_word = codec_detail::first_matrix_word(matrix_layout::tcatbe, dtype::bf16);
  launch.totals = static_cast<tcatbe_pack_totals*>(ws.data_dev);
  TERSOR_CHECK(check_launch(*backend, backend->clear(launch.totals, sizeof *launch.totals, s),
                            "clearing the workspace"));
  for (int pass = 0; pass < kTcatbePackPasses; ++pass) {
    TERSOR_CHECK(check_launch(
        *backend, backend->tcatbe_pack(pass, launch, ctas_for(launch.matrix.n_tiles, processors), s),
        "packing a matrix"));
  }
  return {};
}

status unpack_tcatbe(const packed_weight& w, void* dst, matrix_order order, std::uint64_t stride,
                     matrix_result* result, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  tcatbe_unpack_launch launch;
  launch.matrix =
      make_tcatbe_matrix(w.info.rows, w.info.cols, w.info.overflow_at, w.info.n_bytes, w.info.first_symbol);
  launch.values = values_of(w.info.rows, w.info.cols, order, stride, dst);
  launch.packed = static_cast<const std::uint8_t*>(w.data_dev);
  launch.dst = static_cast<std::uint16_t*>(dst);
  launch.result = reinterpret_cast<matrix_result_slot*>(result);
  return check_launch(*backend,
                      backend->tcatbe_unpack(launch, ctas_for(launch.matrix.n_tiles, processors), s),
                      "unpacking a matrix");
}

}  // namespace tersor::cuda
