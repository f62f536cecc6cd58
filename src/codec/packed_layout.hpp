// The `packed` layout (spec/packed.md): blocks of 16 rows x 128 columns in the fragment order of mma.m16n8k16
// and of wgmma's A operand in registers.
//
// Lane l of a warp holds rows g = l / 4 and g + 8 and, of every 16 columns (a step q = 0..7 of a block),
// columns 2 t, 2 t + 1, 2 t + 8, 2 t + 9 with t = l % 4: eight values j = 2 r + h, register r = 0..3, half h:
//
//   r 0: row g,     columns 2 t + h         r 1: row g + 8, columns 2 t + h
//   r 2: row g,     columns 2 t + 8 + h     r 3: row g + 8, columns 2 t + 8 + h
//
// A block, BF16 (FP16 in brackets where it differs), `n_bytes = head + fixed + 2 inline_escapes`:
//
//   0     rest     4 x 512 B   part p = q / 2: lane l has 16 bytes: step q even in bytes 0..7, odd in 8..15;
//                              byte j: sign << 7 | mantissa of value j   [low byte of the value]
//   2048  low      512 B       lane l has 4 words; word i: step 2 i in bits 4 j + 0..1, step 2 i + 1 in bits
//                              4 j + 2..3: the low 2 bits of value j's code
//   2560  high     256 B       lane l has 2 words; word i, nibble j: bit 2 step 4 i, bit 3 step 4 i + 1,
//                              bit 1 step 4 i + 2, bit 0 step 4 i + 3: bit 2 of value j's code
//         [1024 B: parts of 512 B, part p: lane l has 4 words: word i is step 4 p + i, nibble j: sign << 3 |
//          code bit 2 << 2 | mantissa bits 9..8]
//   2816  head     16 B        [at 3584]  8 codebook symbols; u16 inline count; u16 overflow count; u32 first
//                              entry in the overflow section
//         escapes  2 B each    position (11 bits) | index << 11; unused places are zero
//
// A code is an index into the block's codebook. An escaped value has code 0 and an entry that names its
// symbol: inside the block a BF16 index i < 31 is symbol window(codebook[0]) + i and 31 is symbol 0 [FP16:
// the symbol]; in the overflow section an entry is 4 bytes: position | symbol << 16. The position of a value
// is the offset of its byte in `rest`.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace tersor::codec_detail {

struct packed_geometry {
  static constexpr std::uint32_t kRows = 16, kCols = 128;
  static constexpr std::uint32_t kValues = kRows * kCols;
  static constexpr std::uint32_t kSteps = 8;  ///< of 16 columns
  static constexpr std::uint32_t kLanes = 32;
  static constexpr std::uint32_t kSymbols = 8;
  static constexpr std::uint32_t kHeadBytes = 16;
  static constexpr std::uint32_t kPositionBits = 11;
  static constexpr std::uint32_t kMaxInline = 1024;
  static constexpr std::uint32_t kHeaderBytes = 128;
  static constexpr std::uint32_t kSectionAlignment = 128;

  static constexpr std::uint32_t kLowAt = kValues;
  static constexpr std::uint32_t kHighAt = kLowAt + kValues / 4;

  [[nodiscard]] static TERSOR_HD constexpr std::uint32_t head_at(bool half) noexcept {
    return kHighAt + (half ? kValues / 2 : kValues / 8);
  }
  [[nodiscard]] static TERSOR_HD constexpr std::uint32_t escapes_at(bool half) noexcept {
    return head_at(half) + kHeadBytes;
  }
  [[nodiscard]] static TERSOR_HD constexpr std::uint32_t block_bytes(bool half,
                                                                     std::uint32_t inline_escapes) noexcept {
    return escapes_at(half) + 2 * inline_escapes;
  }
};

/// Where value (row, col) of a block stands.
struct packed_place {
  std::uint32_t lane, step, value;
};
[[nodiscard]] TERSOR_HD constexpr packed_place place_in_block(std::uint32_t row, std::uint32_t col) noexcept {
  const std::uint32_t in_step = col % 16;
  return {(row % 8) * 4 + in_step % 8 / 2, col / 16, in_step / 8 * 4 + row / 8 * 2 + in_step % 2};
}
/// Offset of the value's byte in `rest`, which is its position.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t position_of(const packed_place& p) noexcept {
  return p.step / 2 * 512 + p.lane * 16 + p.step % 2 * 8 + p.value;
}
[[nodiscard]] TERSOR_HD constexpr packed_place place_at(std::uint32_t position) noexcept {
  return {position / 16 % 32, position / 512 * 2 + position / 8 % 2, position % 8};
}
[[nodiscard]] TERSOR_HD constexpr std::uint32_t row_of(const packed_place& p) noexcept {
  return p.lane / 4 + 8 * (p.value / 2 % 2);
}
[[nodiscard]] TERSOR_HD constexpr std::uint32_t col_of(const packed_place& p) noexcept {
  return p.step * 16 + p.lane % 4 * 2 + p.value % 2 + 8 * (p.value / 4);
}

/// BF16 escapes inside a block: the first of 31 symbols around the most frequent one.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t escape_window(std::uint32_t first_symbol) noexcept {
  return first_symbol <= 22 ? 0 : first_symbol >= 246 ? 224 : first_symbol - 22;
}
inline constexpr std::uint32_t kZeroSymbolIndex = 31;
[[nodiscard]] TERSOR_HD constexpr std::uint32_t escape_symbol(bool half, std::uint32_t first_symbol,
                                                              std::uint32_t index) noexcept {
  if (half) return index;
  return index == kZeroSymbolIndex ? 0 : escape_window(first_symbol) + index;
}
/// The index by which an entry inside the block names a symbol, the smaller one if two would do;
/// kNoEscapeIndex if none does.
inline constexpr std::uint32_t kNoEscapeIndex = 32;
[[nodiscard]] TERSOR_HD constexpr std::uint32_t escape_index(bool half, std::uint32_t first_symbol,
                                                             std::uint32_t symbol) noexcept {
  if (half) return symbol;
  const std::uint32_t window = escape_window(first_symbol);
  if (symbol >= window && symbol - window < kZeroSymbolIndex) return symbol - window;
  return symbol == 0 ? kZeroSymbolIndex : kNoEscapeIndex;
}

}  // namespace tersor::codec_detail
