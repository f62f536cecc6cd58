// Products checked on the device.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace gpu_test {

/// A product that has been made, and from what. All of two-byte values; strides in values.
struct made_product {
  const std::uint16_t* w = nullptr;  ///< rows x cols, dense
  const std::uint16_t* x = nullptr;
  const std::uint16_t* y = nullptr;
  const std::uint16_t* y_before = nullptr;  ///< at the same place in a copy of Y from before
  const std::uint16_t* bias = nullptr;      ///< may be null
  std::uint64_t ldx = 0, ldy = 0;
  std::uint64_t rows = 0, cols = 0, n = 0;
  bool half = false, accumulate = false;
};

struct product_verdict {
  unsigned long long n_bad = 0;
  unsigned long long first_bad = ~0ull;  ///< token * rows + row
  float worst = 0;                       ///< largest error in units of what is allowed
  float unused = 0;
};

/// Compares every output with a sum in double precision: rounding to the dtype, plus what sums in fp32 may
/// lose. Where that sum is infinite or not a number, so must the output be. `verdict_dev` holds a fresh
/// verdict.
void launch_check_product(const made_product& p, product_verdict* verdict_dev, cudaStream_t stream);

/// X is the identity: every output must be its weight, bit for bit (zeros of either sign).
void launch_check_one_hot(const made_product& p, std::uint64_t first_column, product_verdict* verdict_dev,
                          cudaStream_t stream);
/// Rows `first_column`, ... of the identity, in the dtype's 1.0.
void launch_make_one_hot(std::uint16_t* x, std::uint64_t ldx, std::uint64_t cols, std::uint64_t n,
                         std::uint64_t first_column, bool half, cudaStream_t stream);

/// Counts the values of a buffer of `n_values` that changed though they are no output: outputs are columns
/// [0, rows) of `n_lines` lines of `ldy` values from value `lead` on.
void launch_check_untouched(const std::uint16_t* now, const std::uint16_t* before, std::uint64_t n_values,
                            std::uint64_t lead, std::uint64_t ldy, std::uint64_t rows, std::uint64_t n_lines,
                            unsigned long long* counter_dev, cudaStream_t stream);

}  // namespace gpu_test
