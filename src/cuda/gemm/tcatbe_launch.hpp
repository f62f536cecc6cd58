// What the kernels of layout `tcatbe` are told: plain structs, made on the host, passed by value.
#pragma once

#include <algorithm>
#include <cstdint>

#include "codec/tcatbe_layout.hpp"
#include "cuda/gemm/gemm_launch.hpp"
#include "cuda/gemm/pack_launch.hpp"

namespace tersor::cuda {

/// Where the sections of a packed matrix lie, in bytes from its header, and the shape.
struct tcatbe_matrix {
  std::uint64_t index_at = 0, digests_at = 0, coded_at = 0, escapes_at = 0;
  std::uint64_t n_bytes = 0;
  std::uint32_t row_tiles = 0, col_tiles = 0, n_tiles = 0;  ///< of 64 x 64
  std::uint32_t first_symbol = 0;
};

/// Kernels count tiles in 32 bits.
inline constexpr std::uint64_t kMaxTcatbeGpuTiles = std::uint64_t{1} << 30;

/// For at most kMaxTcatbeGpuTiles tiles; escapes_at, n_bytes and first_symbol are what the matrix's header
/// says.
[[nodiscard]] inline tcatbe_matrix make_tcatbe_matrix(std::uint64_t rows, std::uint64_t cols,
                                                      std::uint64_t escapes_at, std::uint64_t n_bytes,
                                                      std::uint32_t first_symbol) {
  const codec_detail::tcatbe_sections s = codec_detail::make_tcatbe_sections(rows, cols);
  return {s.index_at,
          s.digests_at,
          s.coded_at,
          escapes_at,
          n_bytes,
          static_cast<std::uint32_t>(s.row_tiles),
          static_cast<std::uint32_t>(s.col_tiles),
          static_cast<std::uint32_t>(s.n_tiles),
          first_symbol};
}

// ---- GEMM ----

/// One pass over the weights for up to `n_tile` tokens. The tiles, row tile by row tile, are shared out
/// evenly: CTA c sums its run of them. What belongs to row tiles that it shares with other CTAs goes to
/// `partials`, two places a CTA (its first row tile and its last one), and a second kernel adds them up in
/// the order of the CTAs.
struct tcatbe_gemm_launch {
  gemm_operands op;  ///< one matrix, at most n_tile tokens
  tcatbe_matrix matrix;
  std::uint32_t n_tile = 0;  ///< 8, 16, 32, 64 or 128
  std::uint32_t ctas = 0;    ///< 1 .. tiles of the matrix
  float* partials = nullptr;
};

[[nodiscard]] inline std::uint64_t tcatbe_partial_bytes(std::uint32_t ctas, std::uint32_t n_tile) {
  return std::uint64_t{2} * ctas * codec_detail::tcatbe_geometry::kSide * n_tile * sizeof(float);
}
/// A 64 x 64 tile in shared memory: bitmaps, coded values, escapes, without gaps.
inline constexpr std::uint32_t kTcatbeTileBytes = codec_detail::tcatbe_geometry::kBitmapBytes +
                                                  2 * codec_detail::tcatbe_geometry::kValues +
                                                  2 * codec_detail::tcatbe_geometry::kStreamAlignment;
/// Tiles on their way, and bytes from one token's 64 values to the next: ldmatrix meets no bank conflict.
inline constexpr std::uint32_t kTcatbeStages = 3;
inline constexpr std::uint32_t kTcatbeTokenPitch = 2 * codec_detail::tcatbe_geometry::kSide + 16;

/// CTAs of a multiprocessor that a variant's registers are limited for.
[[nodiscard]] constexpr std::uint32_t tcatbe_gemm_resident(std::uint32_t n_tile) {
  return n_tile == 8 ? 6 : n_tile <= 32 ? 5 : n_tile == 64 ? 3 : 2;
}
/// The same where a multiprocessor has `shared_bytes` of shared memory for CTAs.
[[nodiscard]] inline std::uint32_t tcatbe_gemm_resident(std::uint32_t n_tile, std::uint32_t shared_bytes) {
  constexpr std::uint32_t kOther = 2048;  // places, counts, and what a launch reserves
  const std::uint32_t each = kTcatbeStages * (kTcatbeTileBytes + n_tile * kTcatbeTokenPitch) + kOther;
  return std::clamp(shared_bytes / each, 1u, tcatbe_gemm_resident(n_tile));
}
/// The runs of CTAs: `ctas` of the launch for a device.
[[nodiscard]] inline std::uint32_t tcatbe_gemm_ctas(std::uint64_t n_tiles, std::uint32_t n_tile,
                                                    std::uint32_t multiprocessors,
                                                    std::uint32_t shared_bytes) {
  const std::uint64_t at_once =
      std::uint64_t{std::max(multiprocessors, 1u)} * tcatbe_gemm_resident(n_tile, shared_bytes);
  return static_cast<std::uint32_t>(std::min(at_once, n_tiles));
}

// ---- unpacking and packing ----

/// A plain matrix in device memory.
struct tcatbe_values {
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t stride = 0;  ///< values from one row (column) to the next
  bool column_major = false;
  bool in_eights = false;  ///< eight values that begin at a multiple of eight lie 16-byte aligned
};

/// CTAs of a multiprocessor that unpacking is compiled for.
inline constexpr std::uint32_t kTcatbeUnpackCtas = 5;

struct tcatbe_unpack_launch {
  tcatbe_matrix matrix;
  tcatbe_values values;
  const std::uint8_t* packed = nullptr;
  std::uint16_t* dst = nullptr;          ///< null: only the digests are compared
  matrix_result_slot* result = nullptr;  ///< may be null
};

/// Cleared before the first pass.
struct tcatbe_pack_totals {
  std::uint64_t counts[256];  ///< of exponents
  std::uint64_t coded_bytes, escape_bytes, n_escapes;
  std::uint64_t content;  ///< sum of the tiles' hashes
  std::uint32_t first_symbol;
  std::uint32_t done;  ///< CTAs of the last pass that have finished
};

/// The passes: 0 counts exponents; 1 (one CTA) chooses the window; 2 counts the coded values of every tile; 3
/// (one CTA) places the tiles; 4 writes them and, last of all, the header.
inline constexpr int kTcatbePackPasses = 5;

struct tcatbe_pack_launch {
  tcatbe_matrix matrix;  ///< without what follows from the values: escapes_at, n_bytes, first_symbol
  tcatbe_values values;
  const std::uint16_t* src = nullptr;
  std::uint8_t* packed = nullptr;
  std::uint64_t capacity = 0;  ///< at least coded_at
  matrix_result_slot* result = nullptr;
  std::uint64_t first_word = 0;          ///< of the header
  tcatbe_pack_totals* totals = nullptr;  ///< in the workspace
};

}  // namespace tersor::cuda
