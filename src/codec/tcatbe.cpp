// Sizes and header of the `tcatbe` layout.
#include "codec/tcatbe.hpp"

#include "core/checked.hpp"

namespace tersor::codec_detail {

using geometry = tcatbe_geometry;

std::optional<tcatbe_sections> checked_tcatbe_sections(std::uint64_t rows, std::uint64_t cols) noexcept {
  const auto tiles =
      core::checked_mul(core::ceil_div(rows, geometry::kSide), core::ceil_div(cols, geometry::kSide));
  if (!tiles || *tiles > kMaxTcatbeTiles) return std::nullopt;
  return make_tcatbe_sections(rows, cols);
}

std::uint64_t tcatbe_bound(std::uint64_t rows, std::uint64_t cols) noexcept {
  const auto s = checked_tcatbe_sections(rows, cols);
  if (!s) return 0;
  // One coded value costs a whole unit of `coded`; every further one saves a byte.
  const std::uint64_t most = s->n_tiles * (geometry::kStreamAlignment + tcatbe_escape_bytes(0));
  return s->coded_at + most + 2 * geometry::kSectionAlignment;
}

std::uint32_t best_tcatbe_window(std::span<const std::uint64_t, 256> counts) noexcept {
  std::uint64_t inside = 0;
  for (std::uint32_t i = 0; i < geometry::kCodes; ++i) inside += counts[i];
  std::uint64_t most = inside;
  std::uint32_t best = 0;
  for (std::uint32_t first = 1; first <= geometry::kLastWindow; ++first) {
    inside += counts[first + geometry::kCodes - 1] - counts[first - 1];
    if (inside <= most) continue;
    most = inside;
    best = first;
  }
  return best;
}

status tcatbe_check(const matrix_words& words, matrix_info& info) {
  const auto s = checked_tcatbe_sections(info.rows, info.cols);
  if (!s) return fail_at(errc::size_overflow, "declared sizes leave 64 bits", 8 * kWordRows);
  if (info.type != dtype::bf16) return fail_at(errc::unsupported, "tcatbe holds BF16 only", 6);
  if (words[kWordParameters] > geometry::kLastWindow)
    return fail_at(errc::malformed, "the window of exponents leaves 8 bits", 8 * kWordParameters);
  if (info.blocks_at != s->bitmaps_at || info.digests_at != s->digests_at ||
      words[kWordTcatbeIndexAt] != s->index_at || words[kWordTcatbeCodedAt] != s->coded_at) {
    return fail_at(errc::malformed, "a section is not where rows and columns put it", 8 * kWordBlocksAt);
  }
  const std::uint64_t coded = words[kWordTcatbeCodedBytes], escapes = words[kWordTcatbeEscapeBytes];
  if (coded > s->n_tiles * tcatbe_coded_bytes(geometry::kValues) || coded % geometry::kStreamAlignment != 0 ||
      escapes > s->n_tiles * tcatbe_escape_bytes(0) || escapes % geometry::kStreamAlignment != 0 ||
      info.n_overflow > s->n_tiles * geometry::kValues) {
    return fail_at(errc::malformed, "a stream has a size that its tiles cannot have",
                   8 * kWordTcatbeCodedBytes);
  }
  if (info.overflow_at != core::align_up(s->coded_at + coded, geometry::kSectionAlignment) ||
      info.n_bytes != core::align_up(info.overflow_at + escapes, geometry::kSectionAlignment)) {
    return fail_at(errc::malformed, "the escapes are not where the coded values end", 8 * kWordOverflowAt);
  }
  if (words.back() != 0)
    return fail_at(errc::malformed, "an unused word of the header is not zero", 8 * (words.size() - 1));
  info.first_symbol = static_cast<std::uint32_t>(words[kWordParameters]);
  info.block_bytes = 0;
  info.inline_escapes = 0;
  return {};
}

}  // namespace tersor::codec_detail
