// Weights, tokens and packed matrices for the GEMM tests, made on the CPU.
#pragma once

#include <string>

#include "data.hpp"
#include <tersor/packed.hpp>

namespace gpu_test {

inline constexpr std::array kWeightTypes = {tersor::dtype::bf16, tersor::dtype::f16};

enum class weights {
  trained,      ///< rows at scales that differ; few escapes
  no_escapes,   ///< eight exponents
  all_escapes,  ///< exponents all over a range whose products stay finite
  constant,
  zeros,     ///< of both signs
  patterns,  ///< every finite bit pattern
  special,   ///< trained, with subnormals and -0, and in some rows infinities and NaN
};
inline constexpr std::array kWeights = {weights::trained,  weights::no_escapes, weights::all_escapes,
                                        weights::constant, weights::zeros,      weights::patterns,
                                        weights::special};
[[nodiscard]] const char* to_string(weights kind) noexcept;

/// rows x cols values, dense and row-major.
[[nodiscard]] bytes make_weights(tersor::dtype type, std::uint64_t rows, std::uint64_t cols, weights kind,
                                 std::uint64_t seed);
/// n values between 1/8 and 2 in size.
[[nodiscard]] bytes make_tokens(tersor::dtype type, std::uint64_t n, std::uint64_t seed);

/// The CPU's packing; throws if it refuses.
[[nodiscard]] bytes cpu_packed(const tersor::context& ctx, tersor::dtype type, std::uint64_t rows,
                               std::uint64_t cols, byte_view dense, const tersor::pack_options& options);
[[nodiscard]] tersor::matrix_info info_of(byte_view packed);

}  // namespace gpu_test
