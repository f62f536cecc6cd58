// One 64 x 64 tile of a matrix on the CPU: to and from a buffer in rows, and its digest.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "codec/packed_matrix.hpp"
#include "codec/tcatbe_layout.hpp"

namespace tersor::codec_detail {

/// Values of a tile, row by row.
using tcatbe_values = std::array<std::uint16_t, tcatbe_geometry::kValues>;

inline void swap_on_big_endian(tcatbe_values& values) noexcept {
  if constexpr (std::endian::native == std::endian::big) {
    for (auto& v : values) v = core::byte_swap(v);
  }
}

/// How much of a tile the matrix has, and where it begins there.
struct tcatbe_extent {
  std::uint64_t first_row, first_col;
  std::uint32_t rows, cols;

  [[nodiscard]] bool is_whole() const noexcept {
    return rows == tcatbe_geometry::kSide && cols == tcatbe_geometry::kSide;
  }
};
[[nodiscard]] inline tcatbe_extent tcatbe_extent_of(std::uint64_t rows, std::uint64_t cols,
                                                    std::uint64_t col_tiles, std::uint64_t tile) noexcept {
  constexpr std::uint64_t kSide = tcatbe_geometry::kSide;
  const std::uint64_t row = tile / col_tiles * kSide, col = tile % col_tiles * kSide;
  return {row, col, static_cast<std::uint32_t>(rows - row < kSide ? rows - row : kSide),
          static_cast<std::uint32_t>(cols - col < kSide ? cols - col : kSide)};
}

template <class Byte>
[[nodiscard]] inline Byte* tcatbe_line(const matrix_place<Byte>& m, const tcatbe_extent& at,
                                       std::uint32_t line) noexcept {
  const std::uint64_t index = m.by_rows ? (at.first_row + line) * m.stride + at.first_col
                                        : (at.first_col + line) * m.stride + at.first_row;
  return m.data + 2 * index;
}

/// Tile of a matrix to `values`; what the matrix does not have becomes `padding`.
inline void load_tcatbe_tile(const matrix_place<const std::uint8_t>& m, const tcatbe_extent& at,
                             std::uint16_t padding, tcatbe_values& values) noexcept {
  constexpr std::uint32_t kSide = tcatbe_geometry::kSide;
  if (!at.is_whole()) values.fill(padding);
  const std::uint32_t n_lines = m.by_rows ? at.rows : at.cols, length = m.by_rows ? at.cols : at.rows;
  const bool has_next = m.by_rows && m.cols - at.first_col >= 2 * kSide;
  std::array<std::uint16_t, kSide> line;
  for (std::uint32_t i = 0; i < n_lines; ++i) {
    std::uint16_t* to = m.by_rows ? values.data() + kSide * i : line.data();
    const std::uint8_t* from = tcatbe_line(m, at, i);
    memcpy(to, from, 2 * std::size_t{length});
    // Lines of a tile are far apart: no prefetcher of the CPU sees the next tile coming.
    if (has_next) {
      __builtin_prefetch(from + 2 * kSide);
      __builtin_prefetch(from + 3 * kSide);
    }
    if constexpr (std::endian::native == std::endian::big) {
      for (std::uint32_t j = 0; j < length; ++j) to[j] = core::byte_swap(to[j]);
    }
    if (m.by_rows) continue;
    for (std::uint32_t j = 0; j < length; ++j) values[kSide * j + i] = line[j];
  }
}

inline void store_tcatbe_tile(const tcatbe_values& values, const tcatbe_extent& at,
                              const matrix_place<std::uint8_t>& m) noexcept {
  constexpr std::uint32_t kSide = tcatbe_geometry::kSide;
  const std::uint32_t n_lines = m.by_rows ? at.rows : at.cols, length = m.by_rows ? at.cols : at.rows;
  std::array<std::uint16_t, kSide> line;
  for (std::uint32_t i = 0; i < n_lines; ++i) {
    const std::uint16_t* from = values.data() + kSide * i;
    if (!m.by_rows || std::endian::native == std::endian::big) {
      for (std::uint32_t j = 0; j < length; ++j) line[j] = m.by_rows ? from[j] : values[kSide * j + i];
      if constexpr (std::endian::native == std::endian::big) {
        for (auto& v : line) v = core::byte_swap(v);
      }
      from = line.data();
    }
    memcpy(tcatbe_line(m, at, i), from, 2 * std::size_t{length});
  }
}

/// Keys of the digest in the order of a strip's rows: `words[n][step][row][pair]`, row keys included.
struct tcatbe_key_table {
  static constexpr std::uint32_t kPairs = 8;  ///< of columns, in a step of 16
  std::uint32_t words[kNhSums][kRows][tcatbe_geometry::kStripRows][kPairs] = {};
};
consteval tcatbe_key_table make_tcatbe_keys() {
  tcatbe_key_table table;
  for (unsigned n = 0; n < kNhSums; ++n) {
    for (unsigned q = 0; q < kRows; ++q) {
      for (unsigned row = 0; row < tcatbe_geometry::kStripRows; ++row) {
        for (unsigned pair = 0; pair < tcatbe_key_table::kPairs; ++pair) {
          const unsigned lane = row % 8 * 4 + pair % 4, word = 4 * lane + pair / 4 * 2 + row / 8;
          table.words[n][q][row][pair] = kNhKeys.columns[n][word] + kNhKeys.rows[n][q];
        }
      }
    }
  }
  return table;
}
inline constexpr tcatbe_key_table kTcatbeKeys = make_tcatbe_keys();

/// Digest sums of strip `strip`: the tile of 1,024 values v = 256 q + 8 lane + j.
[[nodiscard]] inline nh_sums tcatbe_sums(const tcatbe_values& values, std::uint32_t strip) noexcept {
  constexpr std::uint32_t kPairs = tcatbe_key_table::kPairs, kRowWords = tcatbe_geometry::kSide / 2;
  alignas(32) std::array<std::uint32_t, tcatbe_geometry::kStripValues / 2> words;
  memcpy(words.data(), values.data() + std::size_t{tcatbe_geometry::kStripValues} * strip, sizeof words);
  if constexpr (std::endian::native == std::endian::big) {
    for (auto& w : words) w = std::rotl(w, 16);
  }
  nh_sums sums;
  for (unsigned n = 0; n < kNhSums; ++n) {
    std::uint64_t low = 0, high = 0;
    for (std::uint32_t g = 0; g < 8; ++g) {
      std::uint64_t columns[kPairs] = {};
      for (std::uint32_t q = 0; q < kRows; ++q) {
        const std::uint32_t* above = words.data() + g * kRowWords + q * kPairs;
        const std::uint32_t* below = above + 8 * kRowWords;
        const auto& keys = kTcatbeKeys.words[n][q];
        for (std::uint32_t i = 0; i < kPairs; ++i) {
          const std::uint32_t a = above[i] + keys[g][i], b = below[i] + keys[g + 8][i];
          columns[i] += static_cast<std::uint64_t>(a) * b;
        }
      }
      for (std::uint32_t i = 0; i < kPairs; ++i) {
        low += columns[i] & 0xffffffffu;
        high += columns[i] >> 32;
      }
    }
    sums.t[n] = high << 32 | (low & 0xffffffffu);
  }
  return sums;
}

/// Digest of 64 x 64 tile number `tile`.
[[nodiscard]] inline std::uint64_t tcatbe_digest(const tcatbe_values& values, std::uint64_t tile) noexcept {
  std::uint64_t digest = 0;
  for (std::uint32_t s = 0; s < tcatbe_geometry::kStrips; ++s) {
    digest +=
        tile_hash(tcatbe_sums(values, s), digest_domain::matrix_block, tcatbe_geometry::kStrips * tile + s);
  }
  return digest;
}

}  // namespace tersor::codec_detail
