// Argument checks that packing, unpacking and multiplying share.
#pragma once

#include "codec/packed_matrix.hpp"
#include "cuda/gemm/tcatbe_launch.hpp"
#include <tersor/gemm.hpp>

namespace tersor::cuda {

/// Sections of a `packed` matrix of this shape, with fewer than 2^31 blocks.
[[nodiscard]] result<codec_detail::packed_sections> plan_sections(dtype type, std::uint64_t rows,
                                                                  std::uint64_t cols,
                                                                  std::uint32_t inline_escapes,
                                                                  std::uint64_t n_overflow);
/// What the kernels go by is consistent with itself, so that nothing they address lies outside the matrix.
[[nodiscard]] status check_matrix(const matrix_info& info);
[[nodiscard]] status check_packed_address(const void* packed);
[[nodiscard]] status check_result_address(const matrix_result* result, bool is_needed);
/// A plain matrix in device memory: values from one row (column) to the next, never 0. Values need no more
/// than their own alignment.
[[nodiscard]] result<std::uint64_t> check_plain(std::uint64_t rows, std::uint64_t cols, matrix_order order,
                                                std::uint64_t stride, const void* data_dev);
/// The source's span holds the matrix.
[[nodiscard]] status check_source(const matrix_view& src, std::uint64_t stride);

// tcatbe_calls.cpp; the arguments were checked but for what only this layout knows.
[[nodiscard]] status pack_tcatbe(const matrix_view& src_dev, std::uint64_t stride, void* dst_dev,
                                 std::uint64_t capacity, matrix_result* result_dev, const workspace& ws,
                                 stream s);
[[nodiscard]] status unpack_tcatbe(const packed_weight& w, void* dst_dev, matrix_order order,
                                   std::uint64_t stride, matrix_result* result_dev, stream s);

}  // namespace tersor::cuda
