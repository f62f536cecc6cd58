// The C ABI of tersor/gemm.hpp, as far as it needs no GPU: null pointers, unknown numbers, sizes, plans.
#include <vector>

#include <gtest/gtest.h>

#include <tersor/gemm.hpp>
#include <tersor/tersor.h>

namespace {

namespace cuda = tersor::cuda;

constexpr tersor_cuda_gemm_device kH200 = {.compute_major = 9,
                                           .compute_minor = 0,
                                           .multiprocessors = 132,
                                           .shared_bytes = 227 * 1024,
                                           .has_library = 1};

tersor_cuda_gemm_shape shape_of(std::uint64_t n) {
  return {
      .layout = TERSOR_LAYOUT_PACKED, .dtype = TERSOR_BF16, .rows = 4096, .cols = 4096, .n = n, .groups = 1};
}

tersor_matrix_info some_info() {
  return {.layout = TERSOR_LAYOUT_PACKED,
          .dtype = TERSOR_BF16,
          .rows = 4096,
          .cols = 4096,
          .n_bytes = 1u << 25,
          .block_bytes = 2944,
          .inline_escapes = 56,
          .n_overflow = 0,
          .blocks_at = 128,
          .overflow_at = 0,
          .digests_at = 0,
          .digest = 0,
          .first_symbol = 0,
          .reserved = 0};
}

TEST(cuda_gemm_c_api, required_pointers_are_required) {
  const tersor_matrix_info info = some_info();
  const tersor_cuda_gemm_shape shape = shape_of(1);
  tersor_cuda_gemm_plan plan;
  const std::vector<std::int32_t> codes = {
      tersor_cuda_current_gemm_device(nullptr),
      tersor_cuda_plan_gemm(nullptr, &kH200, &plan),
      tersor_cuda_plan_gemm(&shape, nullptr, &plan),
      tersor_cuda_plan_gemm(&shape, &kH200, nullptr),
      tersor_cuda_gemm_async(nullptr, nullptr, nullptr, 0, nullptr, 0, 1, nullptr, nullptr, 0, nullptr),
      tersor_cuda_grouped_gemm_async(nullptr, nullptr, nullptr, 0, nullptr, 0, nullptr, nullptr, 0, nullptr),
      tersor_cuda_grouped_gemm_async(&info, nullptr, nullptr, 0, nullptr, 0, nullptr, nullptr, 0, nullptr),
      tersor_cuda_pack_async(TERSOR_LAYOUT_PACKED, 0, nullptr, nullptr, 0, nullptr, nullptr, 0, nullptr),
      tersor_cuda_unpack_async(nullptr, nullptr, nullptr, TERSOR_ROW_MAJOR, 0, nullptr, nullptr),
  };
  for (std::size_t i = 0; i < codes.size(); ++i) EXPECT_EQ(codes[i], TERSOR_INVALID_ARGUMENT) << "call " << i;
}

TEST(cuda_gemm_c_api, unknown_numbers_are_refused) {
  tersor_matrix_info info = some_info();
  info.layout = 3;
  EXPECT_EQ(tersor_cuda_gemm_async(&info, nullptr, nullptr, 0, nullptr, 0, 1, nullptr, nullptr, 0, nullptr),
            TERSOR_INVALID_ARGUMENT);
  info = some_info();
  tersor_cuda_gemm_options options{};
  options.plan.kernel = 6;
  EXPECT_EQ(tersor_cuda_gemm_async(&info, nullptr, nullptr, 0, nullptr, 0, 1, &options, nullptr, 0, nullptr),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_cuda_unpack_async(&info, nullptr, nullptr, 2, 0, nullptr, nullptr),
            TERSOR_INVALID_ARGUMENT);
  tersor_cuda_gemm_shape shape = shape_of(1);
  shape.dtype = 77;
  EXPECT_EQ(tersor_cuda_gemm_workspace_size(&shape, nullptr, &kH200), 0U);
  EXPECT_EQ(tersor_cuda_pack_workspace_size(3, 0, TERSOR_BF16, 16, 128), 0U);
  EXPECT_EQ(tersor_cuda_gemm_workspace_size(nullptr, nullptr, &kH200), 0U);
}

TEST(cuda_gemm_c_api, plans_and_sizes_are_those_of_the_cpp_calls) {
  for (const std::uint64_t n : {1U, 8U, 33U, 256U, 4096U}) {
    const tersor_cuda_gemm_shape shape = shape_of(n);
    tersor_cuda_gemm_plan plan;
    ASSERT_EQ(tersor_cuda_plan_gemm(&shape, &kH200, &plan), TERSOR_OK);
    const cuda::gemm_shape same{.rows = 4096, .cols = 4096, .n = n};
    const cuda::gemm_plan expected = cuda::plan_gemm(same, {});
    EXPECT_EQ(plan.kernel, static_cast<std::int32_t>(expected.kernel));
    EXPECT_EQ(plan.n_tile, expected.n_tile);
    EXPECT_EQ(plan.row_blocks, expected.row_blocks);
    EXPECT_EQ(plan.ctas, expected.ctas);
    EXPECT_EQ(plan.split_k, expected.split_k);
    EXPECT_NE(plan.kernel, TERSOR_CUDA_GEMM_AUTOMATIC);
    EXPECT_EQ(tersor_cuda_gemm_workspace_size(&shape, &plan, &kH200),
              cuda::gemm_workspace_size(same, expected, {}));
    EXPECT_EQ(tersor_cuda_gemm_workspace_size(&shape, nullptr, &kH200),
              cuda::gemm_workspace_size(same, {}, {}));
  }
  EXPECT_EQ(tersor_cuda_pack_workspace_size(TERSOR_LAYOUT_PACKED, 0, TERSOR_BF16, 4096, 4096),
            cuda::pack_workspace_size(tersor::dtype::bf16, 4096, 4096, {}));
}

}  // namespace
