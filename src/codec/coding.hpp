// What a chunk's coder needs to know: level widths, codebook and derived sizes.
#pragma once

#include <array>
#include <cstdint>

#include <tersor/codebook.hpp>
#include <tersor/tensor.hpp>

namespace tersor::codec_detail {

inline constexpr std::uint32_t kTileValues = 1024;
inline constexpr std::uint32_t kChunkTiles = 8;
inline constexpr std::uint32_t kChunkValues = kTileValues * kChunkTiles;
inline constexpr std::uint32_t kRawChunkBytes = 16384;
inline constexpr std::uint32_t kRawDigestValueBytes = 2;
inline constexpr std::uint32_t kMaxLevels = 4;
inline constexpr std::uint32_t kMaxRawWords = 192;
/// A coder may write this far past a tail's start before it knows that the tile must be raw.
inline constexpr std::uint32_t kTailScratchBytes = 2560;
/// A decoder may read this far past a tail's end.
inline constexpr std::uint32_t kTailReadSlack = 64;
inline constexpr std::uint8_t kNoPlace = 0xff;

/// Widths and sizes that follow from codec and symbol width alone.
struct level_plan {
  std::array<std::uint8_t, kMaxLevels> widths = {};
  std::uint8_t n_levels = 0;
  std::uint8_t symbol_bits = 0;
  std::uint8_t n_entries = 0;  ///< codebook entries in use

  /// Bits of a raw tile's symbol that go to its tail.
  [[nodiscard]] std::uint32_t raw_tail_bits() const noexcept {
    return static_cast<std::uint32_t>(symbol_bits - widths[0]);
  }
  [[nodiscard]] std::uint32_t raw_words() const noexcept { return raw_tail_bits() * (kTileValues / 32); }
  [[nodiscard]] std::uint32_t code_plane_bytes() const noexcept { return widths[0] * (kTileValues / 8); }
};

/// `rank` or `top16` for a dtype with an exponent.
[[nodiscard]] level_plan make_plan(codec c, std::uint32_t symbol_bits) noexcept;

/// A plan with its codebook and the inverse of the codebook.
struct coding {
  level_plan plan;
  codebook book;
  std::array<std::uint8_t, 256> place = {};  ///< symbol -> codebook entry, kNoPlace for escapes
  std::uint8_t first_symbol = 0;             ///< smallest and largest symbol of the codebook
  std::uint8_t last_symbol = 0;
};

[[nodiscard]] coding make_coding(const level_plan& plan, const codebook& book) noexcept;

/// True if the entries in use are distinct, fit the symbol width, and the others are zero.
[[nodiscard]] bool is_valid_book(const level_plan& plan, const codebook& book) noexcept;

/// Width of the next field plane when `bits` are left: 4, then 2, then 1.
[[nodiscard]] constexpr std::uint32_t field_width(std::uint32_t bits) noexcept {
  return bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

}  // namespace tersor::codec_detail
