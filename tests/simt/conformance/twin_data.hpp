// Tensors for the conformance tests, and the CPU's frames of them.
#pragma once

#include <array>
#include <string>

#include "twin_device.hpp"

namespace twin {

inline constexpr std::array kTypes = {tersor::dtype::bf16, tersor::dtype::f16, tersor::dtype::f8_e4m3,
                                      tersor::dtype::f8_e5m2};
inline constexpr std::array kCodecs = {tersor::codec::rank, tersor::codec::top16};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSlow = true;
#else
inline constexpr bool kSlow = false;
#endif
/// Whether a slow build leaves out case `number`, of which it takes every `n`-th.
[[nodiscard]] constexpr bool left_out(std::uint64_t number, std::uint64_t n) {
  return kSlow && number % n != 0;
}

enum class kind {
  normal,
  row_scaled,         ///< normal, rows of 128 at scales that differ
  heavy_tails,        ///< one value in eight is anything
  uniform_exponents,  ///< random bits
  counting,           ///< value v is the number v
  zeros_and_nans,     ///< runs of zeros, NaN, infinity and random bits
  constant,
  mixed,  ///< the others tile by tile
};
inline constexpr std::array kKinds = {
    kind::normal,   kind::row_scaled,     kind::heavy_tails, kind::uniform_exponents,
    kind::counting, kind::zeros_and_nans, kind::constant,    kind::mixed};
[[nodiscard]] const char* to_string(kind k);

[[nodiscard]] bytes make_data(tersor::dtype type, std::uint64_t n_values, kind k, std::uint64_t seed = 1);

[[nodiscard]] const tersor::context& cpu();
/// The exact codebook.
[[nodiscard]] tersor::codebook book_of(tersor::dtype type, byte_view data);
/// The same as the codec stores it.
[[nodiscard]] tersor::codebook stored_book(tersor::codec c, tersor::codebook book);
/// The canonical frame.
[[nodiscard]] bytes cpu_frame(tersor::codec c, tersor::dtype type, std::span<const std::uint64_t> shape,
                              byte_view data, const tersor::codebook& book);

[[nodiscard]] std::string label(tersor::codec c, tersor::dtype type, std::uint64_t n_values, kind k);

/// A file under spec/vectors.
[[nodiscard]] bytes read_vector(const std::string& name);

/// "" or where two byte strings first differ.
[[nodiscard]] std::string difference(byte_view got, byte_view want);

}  // namespace twin
