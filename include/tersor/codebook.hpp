// Codebooks: which exponents get the short codes.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <tersor/tensor.hpp>

namespace tersor {

class context;

/// How often each exponent (symbol) occurs; `counts[e]` for the symbol widths up to 8 bits.
struct histogram {
  std::array<std::uint64_t, 256> counts = {};

  [[nodiscard]] std::uint64_t total() const noexcept;
  /// Shannon entropy in bits a value; 0 for an empty histogram.
  [[nodiscard]] double entropy() const noexcept;
  /// Share of values whose symbol is among the `k` most frequent; 1 for an empty histogram.
  [[nodiscard]] double coverage(std::size_t k) const noexcept;
  histogram& operator+=(const histogram& other) noexcept;
};

/// The 16 most frequent symbols, most frequent first, ties by smaller symbol (spec/codecs.md section 3).
struct codebook {
  std::array<std::uint8_t, 16> symbols = {};
  friend bool operator==(const codebook&, const codebook&) = default;
};

/// Counts the exponents of `type`-values in `data`; exact. Errors: `unsupported` for dtypes without a coded
/// exponent, `invalid_argument` if the bytes are not whole values.
[[nodiscard]] result<histogram> count_symbols(dtype type, std::span<const std::byte> data);
/// The same with the threads and the instruction set of a context.
[[nodiscard]] result<histogram> count_symbols(const context& ctx, dtype type,
                                              std::span<const std::byte> data);

/// The canonical codebook of a histogram for a dtype (`unsupported` if it has no coded exponent).
[[nodiscard]] result<codebook> make_codebook(dtype type, const histogram& counts);

/// Bits a value that a codec would take for data with this histogram, chunk records and digests included,
/// rounding to words and tiles excluded.
[[nodiscard]] double expected_bits(codec c, dtype type, const histogram& counts,
                                   const codebook& book) noexcept;

}  // namespace tersor
