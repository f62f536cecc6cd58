// Golden matrix frames (spec/packed.md), and damaged ones that every reader must refuse.
#pragma once

#include <string>
#include <vector>

#include "sample_data.hpp"
#include <tersor/packed.hpp>

namespace golden {

/// Stated, so that another default does not change the files.
inline constexpr std::uint32_t kInlineEscapes = 56;

struct matrix_case {
  std::string name;
  tersor::matrix_layout layout = tersor::matrix_layout::packed;
  tersor::dtype type = tersor::dtype::bf16;
  std::uint64_t rows = 0, cols = 0;
  pattern data = pattern::weights;
  std::uint32_t inline_escapes = kInlineEscapes;
};

std::vector<matrix_case> matrix_cases();
/// The values of a case, row by row.
std::vector<std::byte> matrix_data(const matrix_case& c);
std::vector<std::byte> make_matrix(const tersor::context& ctx, const matrix_case& c);

struct bad_matrix {
  std::string name;
  tersor::errc code = tersor::errc::ok;
  std::vector<std::byte> data;
};
std::vector<bad_matrix> bad_matrices(const tersor::context& ctx);

}  // namespace golden
