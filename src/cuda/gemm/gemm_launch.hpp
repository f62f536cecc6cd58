// What the GEMM kernels are told, without a CUDA header.
#pragma once

#include <cstdint>

namespace tersor::cuda {

/// The product that a kernel makes. Rows and columns are the weight's, tokens the rows of X and Y.
struct gemm_operands {
  const std::uint8_t* weights = nullptr;              ///< the packed matrix (its header), or
  const std::uint8_t* const* weight_table = nullptr;  ///< one for each group
  const std::int32_t* first_token = nullptr;          ///< with a table: groups + 1 numbers
  const std::uint8_t* x = nullptr;
  std::uint8_t* y = nullptr;
  const std::uint8_t* bias = nullptr;  ///< null, or `rows` values a group
  std::uint64_t ldx = 0, ldy = 0;      ///< in values
  std::uint32_t rows = 0, cols = 0;
  std::uint32_t n_tokens = 0;  ///< of a group at most
  std::uint32_t accumulate = 0;
  std::uint32_t x_aligned = 0;  ///< x and ldx are multiples of 16 bytes
};

/// Where the sections of a `packed` matrix are.
struct packed_sections {
  std::uint64_t blocks_at = 0, overflow_at = 0;
  std::uint64_t n_overflow = 0;  ///< entries that may be read at overflow_at
  std::uint32_t block_bytes = 0, inline_places = 0;
};

/// A compiled variant: tokens of a pass over the weights, and row blocks that a CTA works on at a time.
struct gemm_tile {
  std::uint32_t tokens = 0, row_blocks = 0;
  [[nodiscard]] friend constexpr bool operator==(const gemm_tile&, const gemm_tile&) = default;
};

struct warp_gemm_launch {
  gemm_operands op;
  packed_sections sections;
  std::uint32_t row_blocks = 0, col_blocks = 0;  ///< of 16 rows, of 128 columns
  std::uint32_t ctas = 0;                        ///< that share the row blocks of a matrix, times split_k
  std::uint32_t split_k = 1;                     ///< CTAs of a cluster
  std::uint32_t stages = 0;                      ///< of a ring in shared memory
  std::uint32_t overlap_previous = 0;            ///< programmatic dependent launch
};

/// The same with X as a tensor for the copy engine.
struct bulk_gemm_launch : warp_gemm_launch {
  std::uint64_t x_rows = 0;             ///< rows of X that may be read
  alignas(64) std::uint8_t x_map[128];  ///< CUtensorMap: boxes of 64 columns and the tile's tokens
};

}  // namespace tersor::cuda
