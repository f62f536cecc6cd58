// The `tcatbe` layout (spec/packed.md): ZipServ's TCA-TBE. An exponent is a code of 3 bits, 1..7 for seven
// consecutive exponents, the best window of the matrix, and 0 for an escape. The planes of the codes are
// bitmaps; everything else is found by counting bits.
//
// Tiles of 64 x 64 values, number b = row tile * tiles across + column tile:
//
//     64 x 64: 4 strips            strip: 16 tiles of 8 x 8, number 4 q + r, in the order of the
//     +---------------- 64 --+     A fragments of mma.m16n8k16 (step q, register r)
//     | strip 0 (16 rows)    |        +---+---+---+---+---+---+---+---+
//     | strip 1              |        | 0 | 2 | 4 | 6 | 8 |10 |12 |14 |  rows 0..7
//     | strip 2              |        | 1 | 3 | 5 | 7 | 9 |11 |13 |15 |  rows 8..15
//     | strip 3              |        +---+---+---+---+---+---+---+---+
//     +----------------------+
//
// 8 x 8: lane l = 4 row + col / 2 of a warp owns columns 2 (l % 4) + h, h = 0, 1. Each of the three bitmaps
// has 64 bits in two words: rows 0..3 (lanes 0..15) and 4..7. Value (lane l, h) is bit l % 16 + 16 h of word
// l / 16, so a lane's two bits lie 16 apart, as its two values do in a register.
//
//   bitmaps   1,536 B a 64 x 64 tile: per strip [plane 3][word 2][tile 16] of 4 bytes; plane k is bit k of
//   the codes coded     sign << 7 | mantissa of the coded values, a byte each escapes   the other values, two
//   bytes each
//             both in the order strip, tile, row, column; those of a 64 x 64 tile begin at a multiple of 16
//             bytes
//   index     24 B a 64 x 64 tile: u64 offset in `coded`, u64 offset in `escapes`, and 4 u16: coded values of
//             strips 0..s. The number of escapes before a value is its position less the coded values before
//             it.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace tersor::codec_detail {

struct tcatbe_geometry {
  static constexpr std::uint32_t kSide = 64;  ///< of the largest tiles
  static constexpr std::uint32_t kValues = kSide * kSide;
  static constexpr std::uint32_t kStrips = 4;
  static constexpr std::uint32_t kStripRows = 16;
  static constexpr std::uint32_t kStripValues = kStripRows * kSide;
  static constexpr std::uint32_t kSmallTiles = 16;  ///< of 8 x 8, in a strip
  static constexpr std::uint32_t kPlanes = 3;
  static constexpr std::uint32_t kPlaneWords = 2 * kSmallTiles;  ///< of a strip
  static constexpr std::uint32_t kStripWords = kPlanes * kPlaneWords;
  static constexpr std::uint32_t kBitmapBytes = kStrips * kStripWords * 4;
  static constexpr std::uint32_t kRecordBytes = 24;
  static constexpr std::uint32_t kStreamAlignment = 16;
  static constexpr std::uint32_t kSectionAlignment = 128;
  static constexpr std::uint32_t kHeaderBytes = 128;
  static constexpr std::uint32_t kCodes = 7;  ///< exponents with a code
  static constexpr std::uint32_t kLastWindow = 256 - kCodes;
};

/// Where value (row, col) of a strip stands: `tile` of 8 x 8, `word` of its bitmaps, `bit` of the word.
struct tcatbe_place {
  std::uint32_t tile, word, bit;
};
[[nodiscard]] TERSOR_HD constexpr tcatbe_place tcatbe_place_of(std::uint32_t row,
                                                               std::uint32_t col) noexcept {
  return {col / 16 * 4 + col / 8 % 2 * 2 + row / 8, row % 8 / 4, row % 4 * 4 + col % 8 / 2 + col % 2 * 16};
}
/// Upper left corner of an 8 x 8 tile in its strip.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_tile_row(std::uint32_t tile) noexcept {
  return tile % 2 * 8;
}
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_tile_col(std::uint32_t tile) noexcept {
  return tile / 2 * 8;
}
/// Index of a bitmap word in its strip.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_word(std::uint32_t plane, std::uint32_t word,
                                                            std::uint32_t tile) noexcept {
  return plane * tcatbe_geometry::kPlaneWords + word * tcatbe_geometry::kSmallTiles + tile;
}

/// Code of a BF16 value under the window that begins at `first`.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_code(std::uint32_t value,
                                                            std::uint32_t first) noexcept {
  const std::uint32_t above = (value >> 7 & 0xff) - first;
  return above < tcatbe_geometry::kCodes ? above + 1 : 0;
}
/// The padding of tiles at the edge: a coded value, hence finite.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_padding(std::uint32_t first) noexcept {
  return first << 7;
}
/// Bytes that a 64 x 64 tile with this many coded values takes of each stream.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_coded_bytes(std::uint32_t n_coded) noexcept {
  constexpr std::uint32_t kMask = tcatbe_geometry::kStreamAlignment - 1;
  return (n_coded + kMask) & ~kMask;
}
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_escape_bytes(std::uint32_t n_coded) noexcept {
  constexpr std::uint32_t kMask = tcatbe_geometry::kStreamAlignment - 1;
  return (2 * (tcatbe_geometry::kValues - n_coded) + kMask) & ~kMask;
}
/// Coded values of strips 0..strip, from the last word of an index record.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t tcatbe_coded_up_to(std::uint64_t counts,
                                                                   std::uint32_t strip) noexcept {
  return static_cast<std::uint32_t>(counts >> (16 * strip)) & 0xffff;
}

/// Where the sections lie; those of fixed size come first.
struct tcatbe_sections {
  std::uint64_t row_tiles = 0, col_tiles = 0, n_tiles = 0;
  std::uint64_t bitmaps_at = 0, index_at = 0, digests_at = 0, coded_at = 0;
};
/// For at most 2^48 tiles, so that no sum leaves 64 bits.
[[nodiscard]] TERSOR_HD constexpr tcatbe_sections make_tcatbe_sections(std::uint64_t rows,
                                                                       std::uint64_t cols) noexcept {
  using g = tcatbe_geometry;
  constexpr std::uint64_t kMask = g::kSectionAlignment - 1;
  tcatbe_sections s;
  s.row_tiles = rows / g::kSide + (rows % g::kSide != 0 ? 1 : 0);
  s.col_tiles = cols / g::kSide + (cols % g::kSide != 0 ? 1 : 0);
  s.n_tiles = s.row_tiles * s.col_tiles;
  s.bitmaps_at = g::kHeaderBytes;
  s.index_at = s.bitmaps_at + s.n_tiles * g::kBitmapBytes;
  s.digests_at = (s.index_at + s.n_tiles * g::kRecordBytes + kMask) & ~kMask;
  s.coded_at = (s.digests_at + s.n_tiles * 8 + kMask) & ~kMask;
  return s;
}
inline constexpr std::uint64_t kMaxTcatbeTiles = std::uint64_t{1} << 48;

}  // namespace tersor::codec_detail
