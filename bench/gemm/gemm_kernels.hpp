// Kernels that make and check the benchmark's data. All return the launch's CUDA error number.
#pragma once

#include <cstdint>

#include <tersor/tensor.hpp>

struct CUstream_st;

namespace tersor::bench {

/// rows x cols values N(0, 1) / 50, times exp(N(0, 1) / 4) of the row; the same for the same numbers.
[[nodiscard]] int launch_make_weights(dtype type, void* dst_dev, std::uint64_t rows, std::uint64_t cols,
                                      CUstream_st* stream);
/// N(0, 1).
[[nodiscard]] int launch_make_tokens(dtype type, void* dst_dev, std::uint64_t n_values, CUstream_st* stream);

/// Adds the number of 16-bit values that differ to *count_dev.
[[nodiscard]] int launch_count_differences(const void* a_dev, const void* b_dev, std::uint64_t n_values,
                                           std::uint64_t* count_dev, CUstream_st* stream);
/// Adds the number of values that are infinite or no number to *count_dev.
[[nodiscard]] int launch_count_not_finite(dtype type, const void* values_dev, std::uint64_t n_values,
                                          std::uint64_t* count_dev, CUstream_st* stream);

/// A product's sample: the outputs of `n_rows` rows of the weight for all tokens, `n_rows` x `n` numbers.
struct gemm_sample {
  dtype type = dtype::bf16;
  const std::uint64_t* rows_dev = nullptr;  ///< which rows
  std::uint64_t n_rows = 0;
  std::uint64_t rows = 0, cols = 0, n = 0;  ///< of the product
};
/// Sums in fp64 of the exact products.
[[nodiscard]] int launch_reference(const gemm_sample& sample, const void* w_dev, const void* x_dev,
                                   double* out_dev, CUstream_st* stream);
/// The same outputs out of Y.
[[nodiscard]] int launch_gather(const gemm_sample& sample, const void* y_dev, double* out_dev,
                                CUstream_st* stream);

}  // namespace tersor::bench
