// Values of a block of the `packed` layout, from a matrix into "tile order" and back: step by step, lane by
// lane, byte 2 (256 step + 8 lane + j).
#pragma once

#include <algorithm>
#include <cstdint>

#include "codec/packed_layout.hpp"
#include "codec/packed_matrix.hpp"

namespace tersor::codec_detail {

inline constexpr std::uint32_t kBlockValueBytes = packed_geometry::kValues * 2;
inline constexpr std::uint32_t kStepValues = 256;
inline constexpr std::uint32_t kGranules = packed_geometry::kValues / 8;  ///< eight values of a lane and step

/// The part of a matrix that a block covers.
struct block_window {
  std::uint64_t row = 0, col = 0;
  std::uint32_t rows = 0, cols = 0;
  [[nodiscard]] bool is_whole() const noexcept {
    return rows == packed_geometry::kRows && cols == packed_geometry::kCols;
  }
};
[[nodiscard]] inline block_window window_of(std::uint64_t block, std::uint64_t col_blocks, std::uint64_t rows,
                                            std::uint64_t cols) noexcept {
  block_window w;
  w.row = block / col_blocks * packed_geometry::kRows;
  w.col = block % col_blocks * packed_geometry::kCols;
  w.rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(packed_geometry::kRows, rows - w.row));
  w.cols = static_cast<std::uint32_t>(std::min<std::uint64_t>(packed_geometry::kCols, cols - w.col));
  return w;
}

/// The values of a block; those outside the matrix are `padding`.
void gather_block(const matrix_place<const std::uint8_t>& src, const block_window& w, std::uint16_t padding,
                  std::uint8_t* values) noexcept;
/// The inverse; padding goes nowhere.
void scatter_block(const std::uint8_t* values, const matrix_place<std::uint8_t>& dst,
                   const block_window& w) noexcept;

}  // namespace tersor::codec_detail
