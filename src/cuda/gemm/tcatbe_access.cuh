// Strips of 16 x 64 values between a plain matrix and shared memory, in either order of the matrix.
#pragma once

#include "cuda/gemm/tcatbe_decode.cuh"

namespace tersor::cuda {

/// Bytes from one row of a strip in shared memory to the next: no two lanes with a fragment meet in a bank.
inline constexpr u32 kStripPitch = 2 * tcatbe_geometry::kSide + 16;
inline constexpr u32 kStripBytes = tcatbe_geometry::kStripRows * kStripPitch;

/// A strip of the matrix: where it begins, and how much of it there is.
struct strip_place {
  u64 first;  ///< index of its first value
  u32 rows, cols;
};
TERSOR_DEVICE strip_place locate_strip(const tcatbe_values& v, u32 row_tile, u32 col_tile, u32 strip) {
  const u64 row = static_cast<u64>(row_tile) * tcatbe_geometry::kSide + strip * tcatbe_geometry::kStripRows;
  const u64 col = static_cast<u64>(col_tile) * tcatbe_geometry::kSide;
  const u64 rows = v.rows > row ? v.rows - row : 0, cols = v.cols - col;
  return {v.column_major ? col * v.stride + row : row * v.stride + col,
          rows < tcatbe_geometry::kStripRows ? static_cast<u32>(rows) : tcatbe_geometry::kStripRows,
          cols < tcatbe_geometry::kSide ? static_cast<u32>(cols) : tcatbe_geometry::kSide};
}

/// Number `unit` of the 128 runs of eight values that follow each other in the matrix.
struct strip_run {
  u32 row, col;
  u64 at;  ///< index from the strip's first value
  u32 n;   ///< values that the matrix has
};
TERSOR_DEVICE strip_run locate_run(const tcatbe_values& v, const strip_place& place, u32 unit) {
  strip_run run;
  run.row = v.column_major ? unit % 2 * 8 : unit / 8;
  run.col = v.column_major ? unit / 2 : unit % 8 * 8;
  run.at = v.column_major ? run.col * v.stride + run.row : run.row * v.stride + run.col;
  const u32 along = v.column_major ? run.row : run.col, most = v.column_major ? place.rows : place.cols;
  const bool there = run.row < place.rows && run.col < place.cols;
  run.n = !there ? 0 : most - along < 8 ? most - along : 8;
  return run;
}

TERSOR_DEVICE u16* strip_value(u8* strip, u32 row, u32 col) {
  return reinterpret_cast<u16*>(strip + row * kStripPitch) + col;
}
/// The lane's pair of 8 x 8 tile `tile`.
TERSOR_DEVICE u32* strip_pair(u8* strip, u32 tile, u32 lane) {
  const u32 row = codec_detail::tcatbe_tile_row(tile) + lane / 4,
            col = codec_detail::tcatbe_tile_col(tile) + lane % 4 * 2;
  return reinterpret_cast<u32*>(strip_value(strip, row, col));
}

/// A warp's strip to shared memory; what the matrix does not have becomes `padding`.
TERSOR_DEVICE void load_strip(const tcatbe_values& v, const u16* matrix, const strip_place& place,
                              u32 padding, u32 lane, u8* strip) {
  const u16* from = matrix + place.first;
  for (u32 unit = lane; unit < tcatbe_geometry::kStripValues / 8; unit += 32) {
    const strip_run run = locate_run(v, place, unit);
    if (run.n == 8 && v.in_eights && !v.column_major) {
      *reinterpret_cast<uint4*>(strip_value(strip, run.row, run.col)) =
          ptx::load(reinterpret_cast<const uint4*>(from + run.at));
      continue;
    }
    for (u32 i = 0; i < 8; ++i) {
      const u16 value = i < run.n ? ptx::load(from + run.at + i) : static_cast<u16>(padding);
      *(v.column_major ? strip_value(strip, run.row + i, run.col)
                       : strip_value(strip, run.row, run.col + i)) = value;
    }
  }
}

/// A warp's strip from shared memory.
TERSOR_DEVICE void store_strip(const tcatbe_values& v, u16* matrix, const strip_place& place, u32 lane,
                               u8* strip) {
  u16* to = matrix + place.first;
#pragma unroll
  for (u32 i = 0; i < tcatbe_geometry::kStripValues / 8 / 32; ++i) {
    const strip_run run = locate_run(v, place, 32 * i + lane);
    u32 pairs[4];
    if (v.column_major) {
#pragma unroll
      for (u32 k = 0; k < 4; ++k)
        pairs[k] = *strip_value(strip, run.row + 2 * k, run.col) |
                   static_cast<u32>(*strip_value(strip, run.row + 2 * k + 1, run.col)) << 16;
    } else {
      const uint4 row = *reinterpret_cast<const uint4*>(strip_value(strip, run.row, run.col));
      pairs[0] = row.x;
      pairs[1] = row.y;
      pairs[2] = row.z;
      pairs[3] = row.w;
    }
    if (run.n == 8 && v.in_eights) {
      ptx::store(reinterpret_cast<uint4*>(to + run.at), make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
      continue;
    }
#pragma unroll
    for (u32 k = 0; k < 8; ++k) {
      if (k < run.n) ptx::store(to + run.at + k, static_cast<u16>(pairs[k / 2] >> (16 * (k % 2))));
    }
  }
}

}  // namespace tersor::cuda
