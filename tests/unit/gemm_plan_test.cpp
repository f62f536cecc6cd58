// Plans of the fused GEMM: what the planner says for any shape and device, their text, tables of them. Needs
// no GPU.
#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "cuda/gemm/plan_rules.hpp"
#include <tersor/gemm.hpp>

namespace {

using namespace tersor;
using namespace tersor::cuda;

constexpr gemm_device kH200 = {};
constexpr std::uint32_t kSmall = 99 * 1024, kA100 = 163 * 1024, kLarge = 227 * 1024;
constexpr gemm_device kDevices[] = {
    {8, 0, 108, kA100, true},    {8, 6, 84, kSmall, true},   {8, 9, 142, kSmall, false},
    {9, 0, 132, kLarge, true},   {9, 0, 132, kLarge, false}, {9, 0, 78, kLarge, true},
    {10, 0, 148, kLarge, false}, {12, 0, 170, kSmall, true}, {8, 7, 8, kA100, false},
    {9, 0, 1, kLarge, false},
};

std::uint64_t ceil_div(std::uint64_t a, std::uint64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

bool is_compiled(const gemm_plan& plan) {
  return std::any_of(std::begin(kCompiledTiles), std::end(kCompiledTiles), [&](const compiled_tile& c) {
    return c.kernel == plan.kernel && c.tile == gemm_tile{plan.n_tile, plan.row_blocks};
  });
}

bool fits(const gemm_plan& plan, const gemm_shape& shape, const gemm_device& device) {
  const bool packed = shape.layout == matrix_layout::packed;
  switch (plan.kernel) {
    case gemm_kernel::warp_mma:
      return packed && is_compiled(plan) && plan.split_k == 1;
    case gemm_kernel::bulk_mma:
      return packed && is_compiled(plan) && device.compute_major >= 9 &&
             device.shared_bytes >= kBulkSharedBytes;
    case gemm_kernel::wgmma:
      return packed && is_compiled(plan) && device.compute_major == 9 && device.compute_minor == 0;
    case gemm_kernel::tcatbe:
      return !packed && is_compiled(plan);
    case gemm_kernel::library:
      return device.has_library && shape.groups == 1;
    default:
      return false;
  }
}

void expect_valid(const gemm_shape& shape, const gemm_device& device) {
  const gemm_plan plan = plan_gemm(shape, device);
  SCOPED_TRACE(::testing::Message() << to_string(plan) << " for " << shape.rows << " x " << shape.cols
                                    << ", N " << shape.n << ", groups " << shape.groups << ", sm_"
                                    << device.compute_major << device.compute_minor << ", "
                                    << device.multiprocessors);
  EXPECT_TRUE(fits(plan, shape, device));
  EXPECT_EQ(plan, plan_gemm(shape, device));
  const auto parsed = parse_gemm_plan(to_string(plan));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, plan);
  if (plan.kernel == gemm_kernel::library) return;
  const std::uint64_t row_blocks = ceil_div(shape.rows, 16);
  ASSERT_GE(plan.row_blocks, 1U);
  ASSERT_GE(plan.ctas, 1U);
  // Every CTA has rows.
  EXPECT_LE(plan.ctas, row_blocks);
  EXPECT_TRUE(plan.split_k == 1 || plan.split_k == 2 || plan.split_k == 4 || plan.split_k == 8);
  // No more CTAs than run at once, but for groups.
  if (shape.groups <= 1) {
    EXPECT_LE(std::uint64_t{plan.ctas} * plan.split_k, device.multiprocessors);
  }
  EXPECT_TRUE(plan.split_k == 1 || ceil_div(shape.cols, 128) >= plan.split_k);
  EXPECT_TRUE(plan.n_tile >= shape.n || plan.n_tile >= 32) << "passes over the weights for few tokens";
}

TEST(gemm_plan, is_valid_for_every_shape_and_device) {
  for (const gemm_device& device : kDevices) {
    for (const matrix_layout layout : {matrix_layout::packed, matrix_layout::tcatbe}) {
      for (const std::uint64_t rows : {1U, 15U, 16U, 17U, 1000U, 4096U, 28672U, 57344U}) {
        for (const std::uint64_t cols : {1U, 127U, 128U, 4096U, 28672U}) {
          for (const std::uint64_t n :
               {1U, 8U, 9U, 16U, 17U, 32U, 33U, 64U, 65U, 128U, 129U, 4096U, 100000U}) {
            expect_valid({layout, dtype::bf16, rows, cols, n, 1}, device);
          }
        }
      }
    }
  }
}

TEST(gemm_plan, is_valid_for_random_and_huge_shapes) {
  std::mt19937_64 rng(1);
  for (int i = 0; i < 20000; ++i) {
    const auto any = [&](unsigned bits) { return 1 + (rng() >> (64 - 1 - rng() % bits)); };
    const gemm_shape shape = {rng() % 4 == 0 ? matrix_layout::tcatbe : matrix_layout::packed,
                              rng() % 2 == 0 ? dtype::bf16 : dtype::f16,
                              any(40),
                              any(40),
                              any(20),
                              rng() % 3 == 0 ? static_cast<std::uint32_t>(any(10)) : 1};
    expect_valid(shape, kDevices[rng() % std::size(kDevices)]);
  }
}

TEST(gemm_plan, shares_out_rows_evenly) {
  const auto plan = [](std::uint64_t rows, std::uint64_t cols, std::uint64_t n) {
    return plan_gemm({matrix_layout::packed, dtype::bf16, rows, cols, n, 1}, kH200);
  };
  EXPECT_EQ(to_string(plan(6144, 4096, 8)), "bulk_mma n_tile=8 row_blocks=4 ctas=128 split_k=1");
  EXPECT_EQ(to_string(plan(4096, 14336, 1)), "bulk_mma n_tile=8 row_blocks=2 ctas=128 split_k=1");
  EXPECT_EQ(to_string(plan(6144, 4096, 32)), "bulk_mma n_tile=32 row_blocks=3 ctas=128 split_k=1");
  EXPECT_EQ(to_string(plan(4096, 4096, 64)), "wgmma n_tile=64 row_blocks=4 ctas=64 split_k=2");
  EXPECT_EQ(plan(1024, 4096, 8).split_k, 4U);
  EXPECT_EQ(plan(16, 128, 8).split_k, 1U);
  EXPECT_EQ(plan(4096, 4096, 4096).kernel, gemm_kernel::library);
}

TEST(gemm_plan, needs_what_the_device_has) {
  const gemm_shape few = {.rows = 4096, .cols = 4096, .n = 8}, many = {.rows = 4096, .cols = 4096, .n = 4096};
  EXPECT_EQ(plan_gemm(few, {7, 5, 72, kSmall, true}), gemm_plan{});
  EXPECT_EQ(plan_gemm(many, {8, 0, 108, kA100, true}).kernel, gemm_kernel::library);
  EXPECT_EQ(plan_gemm(many, {8, 0, 108, kA100, false}).kernel, gemm_kernel::warp_mma);
  EXPECT_EQ(plan_gemm(many, {9, 0, 132, kLarge, false}).kernel, gemm_kernel::wgmma);
  gemm_shape experts = many;
  experts.groups = 8;
  EXPECT_NE(plan_gemm(experts, kH200).kernel, gemm_kernel::library);
}

TEST(gemm_plan, text_comes_back) {
  std::mt19937_64 rng(2);
  const auto any = [&] { return static_cast<std::uint32_t>(rng() >> (32 + rng() % 32)); };
  for (int i = 0; i < 2000; ++i) {
    const gemm_plan plan = {static_cast<gemm_kernel>(rng() % 5), any(), any(), any(), any() | 1};
    const auto parsed = parse_gemm_plan(to_string(plan));
    ASSERT_TRUE(parsed) << to_string(plan);
    EXPECT_EQ(*parsed, plan);
  }
  EXPECT_EQ(*parse_gemm_plan("  library  "), gemm_plan{.kernel = gemm_kernel::library});
  const gemm_plan some = {.kernel = gemm_kernel::wgmma, .n_tile = 64, .split_k = 2};
  EXPECT_EQ(*parse_gemm_plan("wgmma split_k=2  n_tile=64"), some);
}

TEST(gemm_plan, malformed_text_is_refused) {
  for (const char* text : {"",
                           " ",
                           "mma",
                           "warp_mma,n_tile=8",
                           "warp_mma n_tile",
                           "warp_mma n_tile=",
                           "warp_mma n_tile=x",
                           "warp_mma n_tile=-1",
                           "warp_mma n_tile=+1",
                           "warp_mma n_tile=8.0",
                           "warp_mma n_tile=4294967296",
                           "warp_mma n_tile=8 n_tile=8",
                           "warp_mma tile=8",
                           "warp_mma split_k=0",
                           "n_tile=8",
                           "warp_mma\tn_tile=8",
                           "warp_mma n_tile=8 extra",
                           "warp_mma = 8",
                           "Warp_mma",
                           "warp_mma n_tile= 8"}) {
    EXPECT_FALSE(parse_gemm_plan(text)) << "'" << text << "'";
  }
}

gemm_plan_table sample_table() {
  const auto entry = [](std::uint64_t n, std::uint32_t n_tile) {
    return gemm_plan_table::entry{{matrix_layout::packed, dtype::bf16, 6144, 4096, n, 1},
                                  {gemm_kernel::warp_mma, n_tile, 3, 128, 1},
                                  11.5};
  };
  return {.device = "some GPU", .entries = {entry(32, 32), entry(8, 8), entry(16, 16)}};
}

TEST(gemm_plan_table, finds_the_next_larger_n) {
  const gemm_plan_table table = sample_table();
  gemm_shape shape = {.rows = 6144, .cols = 4096, .n = 1};
  EXPECT_EQ(table.find(shape)->n_tile, 8U);
  shape.n = 9;
  EXPECT_EQ(table.find(shape)->n_tile, 16U);
  shape.n = 32;
  EXPECT_EQ(table.find(shape)->n_tile, 32U);
  shape.n = 33;
  EXPECT_FALSE(table.find(shape));
  const gemm_shape others[] = {{matrix_layout::tcatbe, dtype::bf16, 6144, 4096, 1, 1},
                               {matrix_layout::packed, dtype::f16, 6144, 4096, 1, 1},
                               {matrix_layout::packed, dtype::bf16, 6145, 4096, 1, 1},
                               {matrix_layout::packed, dtype::bf16, 6144, 4095, 1, 1},
                               {matrix_layout::packed, dtype::bf16, 6144, 4096, 1, 2}};
  for (const gemm_shape& other : others) EXPECT_FALSE(table.find(other));
}

TEST(gemm_plan_table, json_comes_back) {
  const gemm_plan_table table = sample_table();
  const auto back = gemm_plan_table::from_json(table.to_json());
  ASSERT_TRUE(back) << back.error().describe();
  EXPECT_EQ(back->device, table.device);
  EXPECT_EQ(back->to_json(), table.to_json());
  ASSERT_EQ(back->entries.size(), 3U);
  EXPECT_EQ(back->entries[1].plan, table.entries[1].plan);
  EXPECT_EQ(back->entries[1].shape.n, 8U);
}

TEST(gemm_plan_table, malformed_json_is_refused) {
  const std::string good = sample_table().to_json();
  const auto edited = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const auto code_of = [](const std::string& text) {
    const auto table = gemm_plan_table::from_json(text);
    return table ? errc::ok : table.error().code;
  };
  EXPECT_EQ(code_of(good), errc::ok);
  EXPECT_EQ(code_of(edited("\"tersor_gemm_plans\": 0", "\"tersor_gemm_plans\": 1")),
            errc::unsupported_version);
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{}"), good.substr(0, good.size() / 2),
        edited("\"device\": \"some GPU\"", "\"device\": 1"), edited("\"packed\"", "\"unpacked\""),
        edited("\"BF16\"", "\"B16\""), edited("\"rows\": 6144", "\"rows\": 0"),
        edited("\"rows\": 6144", "\"rows\": -1"), edited("\"n\": 32", "\"n\": \"32\""),
        edited("\"groups\": 1", "\"groups\": 4294967296"), edited("warp_mma", "warp"),
        edited("\"plan\"", "\"plane\""), edited("\"plans\": [", "\"plans\": 3, \"x\": ["),
        edited("\"time_us\": 11.5", "\"time_us\": null")}) {
    EXPECT_EQ(code_of(text), errc::malformed) << text;
  }
}

}  // namespace
