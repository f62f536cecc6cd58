// Packed matrices (spec/packed.md): header, sections, and both directions of the `packed` layout.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "codec/frame_codec.hpp"
#include "codec/packed_layout.hpp"
#include <tersor/packed.hpp>

namespace tersor::codec_detail {

inline constexpr std::size_t kMatrixHeaderWords = 16;
inline constexpr std::uint8_t kMatrixVersion = 1;
/// No section is larger than 2^60 bytes, which keeps every sum of sections inside 64 bits.
inline constexpr std::uint64_t kMaxMatrixSection = std::uint64_t{1} << 60;

/// The header's 16 little-endian words by name.
enum matrix_word : std::size_t {
  kWordMagic = 0,
  kWordRows = 1,
  kWordCols = 2,
  kWordBytes = 3,
  kWordParameters = 4,
  kWordHeaderDigest = 5,
  kWordBlocksAt = 6,
  kWordOverflowAt = 7,
  kWordOverflowCount = 8,
  kWordDigestsAt = 9,
  kWordContentDigest = 10,
  kWordFirstSpare = 11,
};
using matrix_words = std::array<std::uint64_t, kMatrixHeaderWords>;

[[nodiscard]] std::uint64_t first_matrix_word(matrix_layout layout, dtype type) noexcept;
[[nodiscard]] matrix_words load_matrix_words(const std::uint8_t* header) noexcept;
/// Sum over all words; the digest's own word counts as zero.
[[nodiscard]] std::uint64_t matrix_header_digest(const matrix_words& words) noexcept;
/// Sets the digest and writes the header.
void seal_matrix(matrix_words& words, std::uint8_t* dst) noexcept;

/// One block's share of the content digest. `tail` is 0 for `packed`.
[[nodiscard]] constexpr std::uint64_t matrix_index_hash(std::uint64_t block, std::uint64_t digest,
                                                        std::uint64_t tail) noexcept {
  return chain_next(chain_next(chain_start(digest_domain::matrix_index, block), digest), tail);
}

/// Where the sections of a `packed` matrix lie.
struct packed_sections {
  std::uint64_t row_blocks = 0, col_blocks = 0, n_blocks = 0;
  std::uint32_t block_bytes = 0;
  std::uint64_t blocks_end = 0;
  std::uint64_t overflow_at = 0, overflow_end = 0;
  std::uint64_t digests_at = 0, digests_end = 0;
  std::uint64_t n_bytes = 0;
};
/// nullopt if a size leaves the limits. `inline_escapes` is resolved (not 0), `type` is BF16 or FP16.
[[nodiscard]] std::optional<packed_sections> make_packed_sections(dtype type, std::uint64_t rows,
                                                                  std::uint64_t cols,
                                                                  std::uint32_t inline_escapes,
                                                                  std::uint64_t n_overflow) noexcept;

/// The number of places for escapes that the options ask for; nullopt if it is not allowed.
[[nodiscard]] constexpr std::optional<std::uint32_t> resolve_inline_escapes(std::uint32_t asked) noexcept {
  if (asked == 0) return kDefaultInlineEscapes;
  if (asked % 8 != 0 || asked > packed_geometry::kMaxInline) return std::nullopt;
  return asked;
}

/// A matrix in memory; the stride is resolved (not 0) and the caller has checked that everything is inside.
template <class Byte>
struct matrix_place {
  Byte* data = nullptr;
  std::uint64_t rows = 0, cols = 0;
  bool by_rows = true;
  std::uint64_t stride = 0;  ///< values from one row (or column) to the next
};

[[nodiscard]] std::uint64_t packed_bound(dtype type, std::uint64_t rows, std::uint64_t cols,
                                         std::uint32_t inline_escapes) noexcept;

/// True if the bytes begin as a matrix frame does.
[[nodiscard]] bool is_matrix_frame(std::span<const std::byte> bytes) noexcept;

/// Header fields of either layout, checked against each other.
[[nodiscard]] result<matrix_info> read_matrix_header(std::span<const std::uint8_t> bytes);

[[nodiscard]] result<std::uint64_t> pack_blocks(const engine& e, dtype type,
                                                const matrix_place<const std::uint8_t>& src,
                                                std::uint32_t inline_escapes, std::span<std::uint8_t> dst);
/// `info` is what read_matrix_header said about `bytes`, which hold the whole matrix; `dst` holds it
/// unpacked.
[[nodiscard]] status unpack_blocks(const engine& e, const matrix_info& info,
                                   std::span<const std::uint8_t> bytes,
                                   const matrix_place<std::uint8_t>& dst);
/// Rows of blocks [first, first + count) only, at least one, all of them in the matrix; `dst` begins with
/// the first of their rows. Blocks of other rows are not looked at, so what is theirs of the overflow section
/// is not checked.
[[nodiscard]] status unpack_block_rows(const engine& e, const matrix_info& info,
                                       std::span<const std::uint8_t> bytes, std::uint64_t first,
                                       std::uint64_t count, const matrix_place<std::uint8_t>& dst);

}  // namespace tersor::codec_detail
