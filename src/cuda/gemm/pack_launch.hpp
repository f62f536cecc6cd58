// What packing and unpacking hand to their kernels: plain structs, made on the host, passed by value.
#pragma once

#include <cstdint>

namespace tersor::cuda {

/// Blocks of 16 x 128 values of a matrix in memory. `number = row_block * col_blocks + col_block`.
struct matrix_blocks {
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t stride = 0;  ///< values from one row (column) to the next
  std::uint32_t row_blocks = 0, col_blocks = 0, n_blocks = 0;
  bool column_major = false;
  bool in_eights = false;  ///< eight values that begin at a multiple of eight lie 16-byte aligned
};

/// As tersor::cuda::matrix_result; kernels do not include public headers.
struct matrix_result_slot {
  std::int32_t code;
  std::uint32_t block;
  std::uint64_t n_bytes;
};

struct unpack_launch {
  matrix_blocks blocks;
  const std::uint8_t* packed = nullptr;
  std::uint16_t* dst = nullptr;          ///< null: only the digests are compared
  matrix_result_slot* result = nullptr;  ///< may be null
  std::uint64_t n_bytes = 0;
  std::uint64_t overflow_at = 0, n_overflow = 0, digests_at = 0;
  std::uint32_t block_bytes = 0, inline_escapes = 0;
  bool half = false;
};

/// What the passes of packing tell each other, at the front of the workspace; cleared before the first pass.
struct pack_totals {
  std::uint64_t n_overflow;
  std::uint64_t content;  ///< sum of the blocks' hashes
  std::uint32_t done;     ///< CTAs of the last pass that have finished
  std::uint32_t reserved;
};

/// Blocks whose overflow one CTA of the second pass places.
inline constexpr std::uint32_t kPlacedBlocks = 1024;

/// The passes: 0 makes the blocks but for the places of their overflow and counts that; 1 turns the counts
/// into places; 2 writes overflow, digests and header.
inline constexpr int kPackPasses = 3;

struct pack_launch {
  matrix_blocks blocks;
  const std::uint16_t* src = nullptr;
  std::uint8_t* packed = nullptr;
  matrix_result_slot* result = nullptr;
  std::uint64_t capacity = 0;
  std::uint64_t header[16] = {};  ///< without the words that follow from the values
  std::uint64_t overflow_at = 0;
  std::uint32_t block_bytes = 0, inline_escapes = 0;
  bool half = false;
  // Workspace.
  pack_totals* totals = nullptr;
  std::uint64_t* group_sums = nullptr;  ///< overflow entries of each kPlacedBlocks blocks
  std::uint64_t* digests = nullptr;     ///< one a block
  std::uint32_t* places = nullptr;      ///< one a block: overflow count, then index of its first entry
};

// Words of the matrix header (spec/packed.md).
inline constexpr std::uint32_t kMatrixBytesWord = 3, kMatrixDigestWord = 5, kMatrixOverflowWord = 8,
                               kMatrixDigestsAtWord = 9, kMatrixContentWord = 10, kMatrixHeaderWords = 16;

/// tersor::errc::size_overflow; cuda/codec/launch.hpp has the others.
inline constexpr std::int32_t kSizeOverflow = 9;

// CTAs of a multiprocessor that the kernels are compiled for.
inline constexpr std::uint32_t kUnpackCtas = 2, kPackCtas = 3;

}  // namespace tersor::cuda
