// What follows from a histogram of exponents: entropy, coverage, and what each codec makes of it.
#pragma once

#include <array>

#include <tersor/model.hpp>

namespace tersor::model_detail {

/// Where the bits of a coded value go, in bits a value.
struct bit_parts {
  double rest = 0;  ///< sign and mantissa
  std::array<double, 4> levels = {};
  double escapes = 0;
  double raw_symbols = 0;  ///< the whole symbol, where coding it would not pay; levels and escapes are then 0
  double records = 0;      ///< chunk records with their digests

  [[nodiscard]] double total() const noexcept;
  bit_parts& operator+=(const bit_parts& other) noexcept;
  [[nodiscard]] bit_parts scaled(double factor) const noexcept;
};

[[nodiscard]] unsigned symbol_bits(dtype type) noexcept;
/// What is subtracted from the exponent field to get the power of two.
[[nodiscard]] int exponent_bias(dtype type) noexcept;

/// The canonical codebook of counts that belong to the dtype, which is codable.
[[nodiscard]] codebook book_of(dtype type, const histogram& counts);

[[nodiscard]] bit_parts split_bits(codec c, dtype type, const histogram& counts,
                                   const codebook& book) noexcept;

/// Size of the frame of `counts.total()` values with these counts, if they are spread evenly; at most the
/// original size.
[[nodiscard]] std::uint64_t predict_bytes(codec c, dtype type, const histogram& counts,
                                          const codebook& book) noexcept;

/// Fills everything that follows from `type` and `counts`, with the canonical codebook.
void fill_statistics(tensor_analysis& t);

}  // namespace tersor::model_detail
