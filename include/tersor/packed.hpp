// Packed matrices: a BF16 or FP16 weight in the tile layout that the fused GEMM reads (tersor/gemm.hpp).
//
// A packed matrix is one block of bytes, the same in a file, on the wire and in GPU memory: a header of 128
// bytes, then the sections that it names (spec/packed.md). Its values are those of the source, to the last
// bit, and every block of them carries a digest.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <tersor/codec.hpp>

namespace tersor {

/// Tile layouts; the numbers stand in the header.
enum class matrix_layout : std::uint8_t {
  packed =
      1,  ///< Tersor's: 16 x 128 blocks in tensor-core fragment order, 3-bit codes, about 11.5 bits a BF16
  tcatbe = 2,  ///< ZipServ's TCA-TBE: three bitmaps per 8 x 8 tile (BF16 only)
};
[[nodiscard]] std::string_view to_string(matrix_layout layout) noexcept;
[[nodiscard]] std::optional<matrix_layout> parse_matrix_layout(std::string_view name) noexcept;

/// How the source (or, unpacking, the destination) lies in memory: `rows` x `cols` values, the rows (or the
/// columns) contiguous. A linear layer computes Y = X W^T, so rows are its outputs and cols its inputs.
enum class matrix_order : std::uint8_t { row_major, column_major };

/// A matrix in somebody else's memory. `stride`: values from one row (row_major) or column (column_major) to
/// the next, 0 = dense.
struct matrix_view {
  dtype type = dtype::bf16;
  std::uint64_t rows = 0, cols = 0;
  matrix_order order = matrix_order::row_major;
  std::uint64_t stride = 0;
  std::span<const std::byte> data = {};
};

struct pack_options {
  matrix_layout layout = matrix_layout::packed;
  /// Places for escapes inside each block of `packed`: a multiple of 8 up to 1,024; further escapes go to the
  /// overflow section. 0 = the default, which suits trained weights.
  std::uint32_t inline_escapes = 0;
};
inline constexpr std::uint32_t kDefaultInlineEscapes = 56;

/// What a header says. All offsets count from the header's first byte.
struct matrix_info {
  matrix_layout layout = matrix_layout::packed;
  dtype type = dtype::bf16;
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t n_bytes = 0;         ///< size of the packed matrix, header included
  std::uint32_t block_bytes = 0;     ///< packed: bytes from one block to the next
  std::uint32_t inline_escapes = 0;  ///< packed: places for escapes in a block
  std::uint64_t n_overflow = 0;      ///< packed: escapes in the overflow section; tcatbe: all escapes
  std::uint64_t blocks_at = 0, overflow_at = 0, digests_at = 0;
  std::uint64_t digest = 0;        ///< covers the header and, through it, every decoded bit
  std::uint32_t first_symbol = 0;  ///< tcatbe: the exponent of code 1

  [[nodiscard]] double bits_per_weight() const noexcept {
    return 8.0 * static_cast<double>(n_bytes) / (static_cast<double>(rows) * static_cast<double>(cols));
  }
};

/// Upper bound of a packed matrix in bytes, whatever the values; 0 if it leaves 64 bits or the layout does
/// not take the dtype. Escapes cost up to 4 bytes each, so this is more than the source: compare n_bytes with
/// the source's size, and keep a matrix plain where packing does not pay.
[[nodiscard]] std::uint64_t pack_bound(dtype type, std::uint64_t rows, std::uint64_t cols,
                                       const pack_options& options = {}) noexcept;

/// Packs with all threads of the context; the bytes depend on values and options only. Errors:
/// `invalid_argument` (empty matrix, span and shape disagree), `unsupported` (dtype), `destination_too_small`
/// (less than the packed size; never with `pack_bound` bytes), `size_overflow`.
[[nodiscard]] result<std::uint64_t> pack_into(const context& ctx, const matrix_view& src,
                                              std::span<std::byte> dst, const pack_options& options = {});
[[nodiscard]] result<std::vector<std::byte>> pack(const context& ctx, const matrix_view& src,
                                                  const pack_options& options = {});

/// Reads and checks a header (its digest included) of at least 128 bytes; sections are not read.
/// Errors: `truncated`, `bad_magic`, `unsupported_version`, `digest_mismatch`, `malformed`, `unsupported`.
[[nodiscard]] result<matrix_info> inspect_packed(std::span<const std::byte> header);

/// Unpacks into `dst`, rows * cols values in the given order and stride; every digest is compared, and no
/// input, however damaged, is read or written outside the spans. Errors: those of inspect_packed and
/// `digest_mismatch` (with the block as `chunk`), `destination_too_small`.
[[nodiscard]] status unpack_into(const context& ctx, std::span<const std::byte> packed_bytes,
                                 std::span<std::byte> dst, matrix_order order = matrix_order::row_major,
                                 std::uint64_t stride = 0);

}  // namespace tersor
