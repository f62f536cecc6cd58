// The parts of the GEMM benchmark that need no GPU: shapes, candidates of `tersor tune`, means, the figure.
#include "gemm_bench.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace {

using namespace tersor;
using namespace tersor::bench;

gemm_row row_of(std::uint64_t rows, std::uint64_t n, double us, std::optional<double> cublas_us,
                bool pdl = false) {
  gemm_row row;
  row.size = {rows, 4096};
  row.n = n;
  row.pdl = pdl;
  row.time_us = us;
  row.cublas_us = cublas_us;
  return row;
}

TEST(gemm_bench, knows_its_shapes) {
  EXPECT_EQ(gemm_sizes_of("targets").size(), 6U);
  EXPECT_TRUE(gemm_sizes_of("no model").empty());
  for (const std::string& name : gemm_size_names()) {
    EXPECT_FALSE(gemm_sizes_of(name).empty()) << name;
    for (const gemm_size& size : gemm_sizes_of(name))
      EXPECT_EQ((size.rows % 128) + (size.cols % 128), 0U) << name;
  }
}

TEST(gemm_bench, candidates_are_plans_that_differ) {
  for (const matrix_layout layout : {matrix_layout::packed, matrix_layout::tcatbe}) {
    for (const std::uint64_t n : {1U, 8U, 32U, 64U, 200U, 4096U}) {
      for (const gemm_size& size : gemm_sizes_of("targets")) {
        const cuda::gemm_shape shape = {layout, dtype::bf16, size.rows, size.cols, n, 1};
        const auto plans = candidate_plans(shape, {});
        ASSERT_FALSE(plans.empty());
        EXPECT_EQ(plans.front(), cuda::plan_gemm(shape, {}));
        for (auto plan = plans.begin(); plan != plans.end(); ++plan) {
          EXPECT_EQ(std::count(plans.begin(), plans.end(), *plan), 1) << to_string(*plan);
          if (plan->kernel == cuda::gemm_kernel::library) continue;
          EXPECT_GE(plan->ctas, 1U);
          EXPECT_LE(plan->ctas * plan->split_k, 132U) << to_string(*plan);
        }
      }
    }
  }
}

TEST(gemm_bench, means_leave_out_what_was_not_measured) {
  std::vector<gemm_row> rows = {row_of(4096, 8, 10, 20.0), row_of(6144, 8, 10, 5.0),
                                row_of(4096, 1, 10, 15.0), row_of(4096, 8, 10, 30.0, true),
                                row_of(8192, 8, 10, {})};
  rows.push_back(row_of(8192, 8, 10, 1000.0));
  rows.back().wrong = true;
  rows.push_back(row_of(8192, 8, 10, 1000.0));
  rows.back().failure = "refused";
  const auto means = summaries_of(rows);
  ASSERT_EQ(means.size(), 3U);
  EXPECT_EQ(means[0].n, 1U);
  EXPECT_DOUBLE_EQ(means[0].geomean, 1.5);
  EXPECT_EQ(means[1].n, 8U);
  EXPECT_EQ(means[1].n_rows, 2U);
  EXPECT_DOUBLE_EQ(means[1].geomean, 1.0);
  EXPECT_DOUBLE_EQ(means[1].least, 0.5);
  EXPECT_TRUE(means[2].pdl);
  EXPECT_DOUBLE_EQ(means[2].geomean, 3.0);
}

TEST(gemm_bench, figure_has_a_line_for_every_shape) {
  const std::vector<gemm_row> rows = {row_of(4096, 8, 10, 12.0), row_of(4096, 64, 10, 9.0),
                                      row_of(6144, 8, 10, 13.0), row_of(6144, 8, 10, 14.0, true),
                                      row_of(8192, 8, 10, {})};
  const std::string svg = gemm_svg(rows, "a <machine>");
  EXPECT_NE(svg.find("4096 \xC3\x97 4096"), std::string::npos);
  EXPECT_NE(svg.find("6144 \xC3\x97 4096, N = 8: 1.40"), std::string::npos);
  EXPECT_EQ(svg.find("8192"), std::string::npos);
  EXPECT_EQ(svg.find("<machine>"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(gemm_svg({}, "nothing").find("nan"), std::string::npos);
}

}  // namespace
