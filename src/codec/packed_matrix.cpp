#include "codec/packed_matrix.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "codec/tcatbe.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

using geometry = packed_geometry;

constexpr std::array<std::uint8_t, 4> kMagic = {'T', 'S', 'R', 'M'};

/// Adds a section of `count` units; false if it leaves the limits.
bool add_section(std::uint64_t& at, std::uint64_t count, std::uint64_t unit, std::uint64_t& end) noexcept {
  const auto bytes = core::checked_mul(count, unit);
  if (!bytes || *bytes > kMaxMatrixSection) return false;
  end = at + *bytes;
  at = core::align_up(end, geometry::kSectionAlignment);
  return true;
}

/// Escapes of a block that its inline places cannot hold, at most. The eight most frequent of n symbols are
/// at least 8 / n of the values.
constexpr std::uint64_t max_overflow(bool half, std::uint32_t inline_escapes) noexcept {
  const std::uint32_t n_symbols = half ? 32 : 256;
  const std::uint32_t escapes = geometry::kValues - geometry::kValues * geometry::kSymbols / n_symbols;
  // FP16 names every symbol inside the block; BF16 may have symbols that only the overflow section can name.
  if (!half) return escapes;
  return escapes > inline_escapes ? escapes - inline_escapes : 0;
}

status check_packed(const matrix_words& w, const matrix_info& info) {
  if (w[kWordBlocksAt] != geometry::kHeaderBytes)
    return fail_at(errc::malformed, "the blocks do not begin behind the header", 8 * kWordBlocksAt);
  const auto inline_escapes = resolve_inline_escapes(info.inline_escapes);
  if (info.inline_escapes == 0 || !inline_escapes)
    return fail_at(errc::malformed, "the number of inline escapes is not allowed", 8 * kWordParameters + 4);
  if (info.n_overflow > 0xffffffffu) {
    return fail_at(errc::malformed, "more overflow entries than a block can point to",
                   8 * kWordOverflowCount);
  }
  const auto sections =
      make_packed_sections(info.type, info.rows, info.cols, info.inline_escapes, info.n_overflow);
  if (!sections) return fail_at(errc::size_overflow, "declared sizes leave 64 bits", 8 * kWordRows);
  if (info.block_bytes != sections->block_bytes)
    return fail_at(errc::malformed, "block size and inline escapes disagree", 8 * kWordParameters);
  if (info.overflow_at != sections->overflow_at || info.digests_at != sections->digests_at ||
      info.n_bytes != sections->n_bytes) {
    return fail_at(errc::malformed, "a section is not where rows, columns and escapes put it",
                   8 * kWordOverflowAt);
  }
  for (std::size_t i = kWordFirstSpare; i < kMatrixHeaderWords; ++i) {
    if (w[i] != 0) return fail_at(errc::malformed, "an unused word of the header is not zero", 8 * i);
  }
  return {};
}

}  // namespace

std::uint64_t first_matrix_word(matrix_layout layout, dtype type) noexcept {
  std::array<std::uint8_t, 8> bytes = {};
  std::ranges::copy(kMagic, bytes.begin());
  bytes[4] = kMatrixVersion;
  bytes[5] = static_cast<std::uint8_t>(layout);
  bytes[6] = static_cast<std::uint8_t>(type);
  return core::load_le<std::uint64_t>(bytes.data());
}

matrix_words load_matrix_words(const std::uint8_t* header) noexcept {
  matrix_words words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = core::load_le<std::uint64_t>(header + 8 * i);
  return words;
}

std::uint64_t matrix_header_digest(const matrix_words& words) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::uint64_t word = i == kWordHeaderDigest ? 0 : words[i];
    sum += chain_next(chain_start(digest_domain::matrix_header, i), word);
  }
  return sum;
}

void seal_matrix(matrix_words& words, std::uint8_t* dst) noexcept {
  words[kWordHeaderDigest] = matrix_header_digest(words);
  for (std::size_t i = 0; i < words.size(); ++i) core::store_le<std::uint64_t>(dst + 8 * i, words[i]);
}

std::optional<packed_sections> make_packed_sections(dtype type, std::uint64_t rows, std::uint64_t cols,
                                                    std::uint32_t inline_escapes,
                                                    std::uint64_t n_overflow) noexcept {
  packed_sections s;
  s.row_blocks = core::ceil_div(rows, geometry::kRows);
  s.col_blocks = core::ceil_div(cols, geometry::kCols);
  const auto n_blocks = core::checked_mul(s.row_blocks, s.col_blocks);
  if (!n_blocks) return std::nullopt;
  s.n_blocks = *n_blocks;
  s.block_bytes = geometry::block_bytes(type == dtype::f16, inline_escapes);
  std::uint64_t at = geometry::kHeaderBytes;
  if (!add_section(at, s.n_blocks, s.block_bytes, s.blocks_end)) return std::nullopt;
  s.overflow_at = at;
  if (!add_section(at, n_overflow, 4, s.overflow_end)) return std::nullopt;
  s.digests_at = at;
  if (!add_section(at, s.n_blocks, 8, s.digests_end)) return std::nullopt;
  s.n_bytes = at;
  return s;
}

std::uint64_t packed_bound(dtype type, std::uint64_t rows, std::uint64_t cols,
                           std::uint32_t inline_escapes) noexcept {
  const auto least = make_packed_sections(type, rows, cols, inline_escapes, 0);
  if (!least) return 0;
  const auto overflow = core::checked_mul(least->n_blocks, max_overflow(type == dtype::f16, inline_escapes));
  if (!overflow) return 0;
  const auto most = make_packed_sections(type, rows, cols, inline_escapes, *overflow);
  return most ? most->n_bytes : 0;
}

bool is_matrix_frame(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= kMagic.size() && memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

result<matrix_info> read_matrix_header(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < geometry::kHeaderBytes)
    return fail_at(errc::truncated, "a packed matrix has at least 128 bytes", bytes.size());
  if (!std::ranges::equal(bytes.first(kMagic.size()), kMagic))
    return fail_at(errc::bad_magic, "not a packed matrix", 0);
  const matrix_words w = load_matrix_words(bytes.data());
  if (w[kWordHeaderDigest] != matrix_header_digest(w))
    return fail_at(errc::digest_mismatch, "matrix header digest differs", 8 * kWordHeaderDigest);
  if (bytes[4] != kMatrixVersion) {
    return fail_at(errc::unsupported_version,
                   "packed matrix of version " + std::to_string(bytes[4]) +
                       ", which is not one that this Tersor reads (" + std::to_string(kMatrixVersion) + ")",
                   4);
  }
  const auto layout = static_cast<matrix_layout>(bytes[5]);
  if (layout != matrix_layout::packed && layout != matrix_layout::tcatbe)
    return fail_at(errc::unsupported, "unknown matrix layout " + std::to_string(bytes[5]), 5);
  if (bytes[6] != static_cast<std::uint8_t>(dtype::bf16) && bytes[6] != static_cast<std::uint8_t>(dtype::f16))
    return fail_at(errc::unsupported, "a dtype that matrices are not packed of", 6);
  if (bytes[7] != 0) return fail_at(errc::malformed, "a byte of the header that must be zero is not", 7);
  matrix_info info{.layout = layout,
                   .type = static_cast<dtype>(bytes[6]),
                   .rows = w[kWordRows],
                   .cols = w[kWordCols],
                   .n_bytes = w[kWordBytes],
                   .block_bytes = static_cast<std::uint32_t>(w[kWordParameters]),
                   .inline_escapes = static_cast<std::uint32_t>(w[kWordParameters] >> 32),
                   .n_overflow = w[kWordOverflowCount],
                   .blocks_at = w[kWordBlocksAt],
                   .overflow_at = w[kWordOverflowAt],
                   .digests_at = w[kWordDigestsAt],
                   .digest = w[kWordHeaderDigest]};
  if (info.rows == 0 || info.cols == 0)
    return fail_at(errc::malformed, "a packed matrix is never empty", 8 * kWordRows);
  TERSOR_CHECK(layout == matrix_layout::packed ? check_packed(w, info) : tcatbe_check(w, info));
  return info;
}

}  // namespace tersor::codec_detail
