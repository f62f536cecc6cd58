#include "model/analysis_stats.hpp"

#include <algorithm>
#include <cmath>

#include "codec/coding.hpp"
#include "codec/frame_codec.hpp"

namespace tersor::model_detail {
namespace {

using codec_detail::kTileValues;

constexpr double kRecordBits = 8.0 * format::kChunkRecordBytes / codec_detail::kChunkValues;

/// Mean number of bits that round `n` bytes up to whole 32-bit words, `n` Poisson distributed.
double word_padding_of_bytes(double mean) noexcept {
  double bits = 0;
  for (int remainder = 1; remainder < 4; ++remainder) {
    const double sign = remainder % 2 == 0 ? 1 : -1;
    const double share =
        (1 + sign * std::exp(-2 * mean) + 2 * std::exp(-mean) * std::cos(mean - M_PI / 2 * remainder)) / 4;
    bits += 8 * (4 - remainder) * std::max(share, 0.0);
  }
  return bits;
}

/// Expected words of the tail of a full tile.
double tail_words_of(const codec_detail::level_plan& plan, const bit_parts& parts) noexcept {
  if (parts.raw_symbols > 0) return plan.raw_words();
  double bits = parts.escapes * kTileValues;
  double continued = 0;
  for (std::size_t level = 1; level < plan.n_levels; ++level) {
    bits += parts.levels[level] * kTileValues;
    if (level == 1) continued = parts.levels[level] * kTileValues / plan.widths[level];
  }
  // A tail of many fields ends anywhere in its last word; one of escapes alone ends at a byte.
  bits += plan.n_levels > 1 ? 15.5 * (1 - std::exp(-continued))
                            : word_padding_of_bytes(parts.escapes * kTileValues / 8);
  return std::min<double>(bits / 32, plan.raw_words());
}

}  // namespace

double bit_parts::total() const noexcept {
  double sum = rest + escapes + raw_symbols + records;
  for (const double level : levels) sum += level;
  return sum;
}

bit_parts& bit_parts::operator+=(const bit_parts& other) noexcept {
  rest += other.rest;
  for (std::size_t i = 0; i < levels.size(); ++i) levels[i] += other.levels[i];
  escapes += other.escapes;
  raw_symbols += other.raw_symbols;
  records += other.records;
  return *this;
}

bit_parts bit_parts::scaled(double factor) const noexcept {
  bit_parts out = *this;
  out.rest *= factor;
  for (double& level : out.levels) level *= factor;
  out.escapes *= factor;
  out.raw_symbols *= factor;
  out.records *= factor;
  return out;
}

unsigned symbol_bits(dtype type) noexcept {
  const auto* planes = codec_detail::find_planes(type);
  return planes == nullptr ? 0 : planes->symbol_bits;
}

int exponent_bias(dtype type) noexcept {
  const unsigned bits = symbol_bits(type);
  return bits == 0 ? 0 : (1 << (bits - 1)) - 1;
}

codebook book_of(dtype type, const histogram& counts) {
  return make_codebook(type, counts).value_or(codebook{});
}

bit_parts split_bits(codec c, dtype type, const histogram& counts, const codebook& book) noexcept {
  const unsigned n_bits = symbol_bits(type);
  bit_parts parts{.rest = 8.0 * value_bytes(type) - n_bits, .records = kRecordBits};
  const auto n = static_cast<double>(counts.total());
  if (c == codec::raw || n_bits == 0 || n == 0) {
    parts.raw_symbols = n_bits;
    return parts;
  }
  const codec_detail::level_plan plan = codec_detail::make_plan(c, n_bits);
  std::uint64_t left = counts.total();
  std::size_t entry = 0;
  double coded = 0;
  for (std::size_t level = 0; level < plan.n_levels; ++level) {
    parts.levels[level] = plan.widths[level] * static_cast<double>(left) / n;
    coded += parts.levels[level];
    for (std::size_t i = 0; i + 1 < (std::size_t{1} << plan.widths[level]); ++i, ++entry) {
      left -= counts.counts[book.symbols[entry]];
    }
  }
  parts.escapes = 8 * static_cast<double>(left) / n;
  if (coded + parts.escapes >= n_bits) {
    parts.levels = {};
    parts.escapes = 0;
    parts.raw_symbols = n_bits;
  }
  return parts;
}

std::uint64_t predict_bytes(codec c, dtype type, const histogram& counts, const codebook& book) noexcept {
  const std::uint64_t n_values = counts.total();
  const std::uint64_t original = n_values * value_bytes(type);
  if (c == codec::raw || !is_codable(type)) return original;
  const auto plan = codec_detail::make_plan(c, symbol_bits(type));
  const double per_tile = tail_words_of(plan, split_bits(c, type, counts, book));
  const double words = per_tile * static_cast<double>(n_values) / kTileValues;
  const auto layout = format::make_layout(codec_detail::plane_sizes_of(c, type, n_values), n_values,
                                          static_cast<std::uint64_t>(std::ceil(words)));
  return layout ? std::min(layout->frame_bytes, original) : original;
}

void fill_statistics(tensor_analysis& t) {
  t.n_values = t.counts.total();
  t.n_bytes = t.n_values * value_bytes(t.type);
  t.entropy = t.counts.entropy();
  for (std::size_t k = 0; k < t.coverage.size(); ++k) t.coverage[k] = t.counts.coverage(k);
  const codebook book = book_of(t.type, t.counts);
  const double value_bits = 8.0 * value_bytes(t.type);
  t.ideal_ratio = t.n_values == 0 ? 1 : value_bits / (value_bits - symbol_bits(t.type) + t.entropy);
  t.rank_bits = expected_bits(codec::rank, t.type, t.counts, book);
  t.top16_bits = expected_bits(codec::top16, t.type, t.counts, book);
  t.rank_bytes = predict_bytes(codec::rank, t.type, t.counts, book);
  t.top16_bytes = predict_bytes(codec::top16, t.type, t.counts, book);
}

}  // namespace tersor::model_detail
