#include <algorithm>
#include <cmath>
#include <numeric>

#include "codec/frame_codec.hpp"
#include <tersor/codebook.hpp>

namespace tersor {
namespace {

/// Symbols by falling count, ties by smaller symbol.
std::array<std::uint8_t, 256> by_frequency(const histogram& h) noexcept {
  std::array<std::uint8_t, 256> order;
  std::iota(order.begin(), order.end(), std::uint8_t{0});
  std::ranges::stable_sort(order, [&](std::uint8_t a, std::uint8_t b) { return h.counts[a] > h.counts[b]; });
  return order;
}

}  // namespace

std::uint64_t histogram::total() const noexcept {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

double histogram::entropy() const noexcept {
  const auto n = static_cast<double>(total());
  double bits = 0;
  for (const std::uint64_t count : counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / n;
    bits -= p * std::log2(p);
  }
  return bits;
}

double histogram::coverage(std::size_t k) const noexcept {
  const std::uint64_t n = total();
  if (n == 0) return 1;
  const auto order = by_frequency(*this);
  std::uint64_t covered = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(k, order.size()); ++i) covered += counts[order[i]];
  return static_cast<double>(covered) / static_cast<double>(n);
}

histogram& histogram::operator+=(const histogram& other) noexcept {
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
  return *this;
}

result<codebook> make_codebook(dtype type, const histogram& counts) {
  const codec_detail::dtype_planes* planes = codec_detail::find_planes(type);
  if (planes == nullptr) return fail(errc::unsupported, "this dtype has no exponent to code");
  for (std::size_t s = std::size_t{1} << planes->symbol_bits; s < counts.counts.size(); ++s) {
    if (counts.counts[s] != 0)
      return fail(errc::invalid_argument, "histogram counts symbols the dtype cannot have");
  }
  // Symbols the dtype cannot have sort behind all others: they are larger and have count zero.
  const auto order = by_frequency(counts);
  codebook book;
  std::copy_n(order.begin(), book.symbols.size(), book.symbols.begin());
  return book;
}

double expected_bits(codec c, dtype type, const histogram& counts, const codebook& book) noexcept {
  const codec_detail::dtype_planes* planes = codec_detail::find_planes(type);
  const double value_bits = 8.0 * value_bytes(type);
  constexpr double kRecordBits = 8.0 * format::kChunkRecordBytes / codec_detail::kChunkValues;
  if (c == codec::raw || planes == nullptr)
    return value_bits + 64.0 * value_bits / 8 / codec_detail::kRawChunkBytes;
  const auto n = static_cast<double>(counts.total());
  if (n == 0) return value_bits;
  const codec_detail::level_plan plan = codec_detail::make_plan(c, planes->symbol_bits);
  double left = 1;
  double bits = 0;
  std::size_t entry = 0;
  for (std::size_t level = 0; level < plan.n_levels; ++level) {
    bits += plan.widths[level] * left;
    for (std::size_t i = 0; i + 1 < (std::size_t{1} << plan.widths[level]); ++i, ++entry) {
      left -= static_cast<double>(counts.counts[book.symbols[entry]]) / n;
    }
  }
  bits += 8 * std::max(left, 0.0);
  return value_bits - planes->symbol_bits + std::min<double>(bits, planes->symbol_bits) + kRecordBits;
}

}  // namespace tersor
