// Blocks of a matrix in memory: which block a warp works on, and runs of eight values in either order.
#pragma once

#include "codec/packed_layout.hpp"
#include "cuda/codec/digest.cuh"
#include "cuda/gemm/pack_launch.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

using packed_geometry = codec_detail::packed_geometry;

/// A block of the matrix.
struct block_place {
  u32 number, row_block, col_block;
};

/// Work item `i`: neighbours lie side by side in memory, rows of blocks or columns of them.
TERSOR_DEVICE block_place locate_block(const matrix_blocks& m, u32 i) {
  if (m.column_major) {
    const u32 col = i / m.row_blocks, row = i - col * m.row_blocks;
    return {row * m.col_blocks + col, row, col};
  }
  const u32 row = i / m.col_blocks;
  return {i, row, i - row * m.col_blocks};
}

/// How many of a block's rows and columns the matrix has.
struct block_extent {
  u32 rows, cols;
};
TERSOR_DEVICE block_extent extent_of(const matrix_blocks& m, const block_place& at) {
  constexpr u32 kRows = packed_geometry::kRows, kCols = packed_geometry::kCols;
  const u64 rows = m.rows - static_cast<u64>(at.row_block) * kRows;
  const u64 cols = m.cols - static_cast<u64>(at.col_block) * kCols;
  return {rows < kRows ? static_cast<u32>(rows) : kRows, cols < kCols ? static_cast<u32>(cols) : kCols};
}

/// Index of value (row, col) of a block in the matrix.
TERSOR_DEVICE u64 value_index(const matrix_blocks& m, const block_place& at, u32 row, u32 col) {
  const u64 r = static_cast<u64>(at.row_block) * packed_geometry::kRows + row;
  const u64 c = static_cast<u64>(at.col_block) * packed_geometry::kCols + col;
  return m.column_major ? c * m.stride + r : r * m.stride + c;
}

/// Eight values of a block that follow each other in memory, from (row, col) on.
struct eight_values {
  u32 row, col;
};
/// Number `unit` of those of `kCols` columns of a block.
template <u32 kCols>
TERSOR_DEVICE eight_values eight_of(bool column_major, u32 unit) {
  if (column_major) return {unit % 2 * 8, unit / 2};
  return {unit / (kCols / 8), unit % (kCols / 8) * 8};
}
/// How many of them the matrix has.
TERSOR_DEVICE u32 live_values(bool column_major, const eight_values& at, const block_extent& extent) {
  const u32 across = column_major ? at.col : at.row, along = column_major ? at.row : at.col;
  const u32 most_across = column_major ? extent.cols : extent.rows;
  const u32 most_along = column_major ? extent.rows : extent.cols;
  if (across >= most_across || along >= most_along) return 0;
  return most_along - along < 8 ? most_along - along : 8;
}

/// Digest of a block from the sums of its tiles; the same in every lane. Even lanes hash the first tile, odd
/// ones the second.
TERSOR_DEVICE u64 block_digest(u32 number, const tile_sums& low, const tile_sums& high, u32 lane) {
  const bool odd = (lane & 1) != 0;
  const u64 tile = 2 * static_cast<u64>(number) + (odd ? 1 : 0);
  const u64 start = chain_start(digest_domain::matrix_block, tile);
  const u64 hash =
      chain_next(chain_next(start, odd ? high.second : low.second), odd ? high.first : low.first);
  return hash + ptx::shfl_xor(hash, 1);
}

}  // namespace tersor::cuda
