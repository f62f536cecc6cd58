// Products on the twin against sums in double precision.
#pragma once

#include <string>
#include <vector>

#include "cuda/gemm/gemm_launch.hpp"
#include "twin_data.hpp"
#include <tersor/packed.hpp>

namespace twin {

/// A weight, plain and packed, and what X it meets.
struct weight {
  tersor::dtype type = tersor::dtype::bf16;
  std::uint64_t rows = 0, cols = 0;
  bytes dense, packed;
  tersor::matrix_info info;
};
enum class content {
  trained,      ///< a narrow range of exponents, some far away
  all_escapes,  ///< exponents all over a range whose sums stay finite
  special,      ///< zeros of both signs, subnormals, and in some rows infinities and NaN
  constant,
};
inline constexpr std::array kContents = {content::trained, content::all_escapes, content::special,
                                         content::constant};
[[nodiscard]] weight make_weight(tersor::dtype type, std::uint64_t rows, std::uint64_t cols, content what,
                                 std::uint64_t seed, const tersor::pack_options& options = {});

struct product {
  std::uint64_t n = 1;
  bool bias = false, accumulate = false;
  bool one_hot = false;  ///< token t is row t % cols of the identity
  std::uint64_t more_x = 0, more_y = 0;
  std::size_t x_offset = 0, y_offset = 0;
  std::vector<std::uint64_t> groups = {};  ///< tokens of each group; empty: one product
  std::uint64_t seed = 1;
};

/// How the operands, which lie in the device's memory, become a product; X has `x_rows` rows.
using product_launcher = std::function<int(device&, const tersor::cuda::gemm_operands&,
                                           std::uint32_t n_groups, std::uint64_t x_rows)>;
/// A test failure where an output is wrong or something else was written. All groups have the same shape.
void check_product(device& d, const std::vector<const weight*>& weights, const product& p,
                   const product_launcher& launch, const std::string& what);

}  // namespace twin
