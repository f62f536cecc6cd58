// Products through the public calls on the twin: every compiled tile, what the planner chooses, groups.
#include <gtest/gtest.h>

#include "cuda/gemm/plan_rules.hpp"
#include "gemm_rig.hpp"
#include <tersor/gemm.hpp>

namespace {

using namespace twin;
using tersor::dtype;
using tersor::errc;
using namespace tersor::cuda;

gemm_device twin_device(const device& d) {
  return {.multiprocessors = d.multiprocessors()};
}

/// `said` gets the code of a call that fails.
product_launcher one_call(const weight& w, const gemm_plan& plan, errc* said = nullptr) {
  return [&w, plan, said](device& d, const gemm_operands& op, std::uint32_t, std::uint64_t n) {
    const gemm_shape shape{.layout = w.info.layout, .type = w.type, .rows = w.rows, .cols = w.cols, .n = n};
    const std::uint64_t n_bytes = gemm_workspace_size(shape, plan, twin_device(d));
    const workspace ws{n_bytes == 0 ? nullptr : d.reserve(n_bytes, "workspace"), n_bytes};
    const auto called =
        gemm_async({w.info, op.weights}, op.x, op.ldx, const_cast<std::uint8_t*>(op.y), op.ldy, n,
                   {.bias_dev = op.bias, .accumulate = op.accumulate != 0, .plan = plan}, ws, nullptr);
    if (said != nullptr) *said = called ? errc::ok : called.error().code;
    if (!called) ADD_FAILURE() << called.error().describe();
    return called ? 0 : 1;
  };
}

std::uint64_t in_eights(std::uint64_t cols) {
  return (8 - cols % 8) % 8;
}

TEST(gemm_calls, every_compiled_tile) {
  std::uint64_t number = 0;
  for (const compiled_tile& tile : kCompiledTiles) {
    const bool is_tcatbe = tile.kernel == gemm_kernel::tcatbe;
    for (const dtype type : {dtype::bf16, dtype::f16}) {
      if ((is_tcatbe && type == dtype::f16) || left_out(++number, 3)) continue;
      const content what = kContents[number % kContents.size()];
      const weight w =
          make_weight(type, 70 + number, 400 + 37 * (number % 5), what, number,
                      {.layout = is_tcatbe ? tersor::matrix_layout::tcatbe : tersor::matrix_layout::packed,
                       .inline_escapes = is_tcatbe || number % 4 != 1 ? 0u : 1024u});
      const bool has_splits = tile.kernel == gemm_kernel::bulk_mma || tile.kernel == gemm_kernel::wgmma;
      const gemm_plan plan{.kernel = tile.kernel,
                           .n_tile = tile.tile.tokens,
                           .row_blocks = tile.tile.row_blocks,
                           .ctas = static_cast<std::uint32_t>(1 + number % 3),
                           .split_k = has_splits ? 1u << number % 3 : 1};
      device d(number);
      check_product(d, {&w},
                    {.n = number % 2 == 0 ? tile.tile.tokens + 1 : tile.tile.tokens / 2,
                     .bias = number % 2 == 0,
                     .accumulate = number % 3 == 0,
                     .more_x = has_splits ? in_eights(w.cols) : number % 2,
                     .more_y = number % 4,
                     .x_offset = has_splits ? 0 : 2 * (number % 3),
                     .seed = number},
                    one_call(w, plan), to_string(plan) + " number " + std::to_string(number));
      if (HasFailure()) return;
    }
  }
}

/// Aligned and not, few tokens and more: whatever the planner takes is right.
TEST(gemm_calls, planned) {
  std::uint64_t number = 0;
  for (const std::uint64_t n : std::initializer_list<std::uint64_t>{1, 8, 9, 17, 40, 70}) {
    for (const std::uint64_t cols : std::initializer_list<std::uint64_t>{64, 200, 333}) {
      if (left_out(++number, 3)) continue;
      const dtype type = number % 2 == 0 ? dtype::f16 : dtype::bf16;
      const weight w = make_weight(type, 90, cols, content::trained, number);
      device d(number, 4);
      check_product(d, {&w}, {.n = n, .bias = true, .x_offset = number % 4 == 0 ? 2u : 0u, .seed = number},
                    one_call(w, {}), "planned, number " + std::to_string(number));
      if (HasFailure()) return;
    }
  }
}

TEST(gemm_calls, grouped) {
  const std::array<weight, 4> all = {make_weight(dtype::bf16, 40, 200, content::trained, 1),
                                     make_weight(dtype::bf16, 40, 200, content::all_escapes, 2),
                                     make_weight(dtype::bf16, 40, 200, content::trained, 3),
                                     make_weight(dtype::bf16, 40, 200, content::special, 4)};
  std::vector<const weight*> weights;
  for (const weight& w : all) weights.push_back(&w);
  for (const std::uint64_t more : std::initializer_list<std::uint64_t>{0, 1}) {
    const product p{
        .bias = true, .accumulate = more == 1, .more_x = more, .groups = {3, 0, 11, 1}, .seed = more};
    device d(more, 3);
    check_product(
        d, weights, p,
        [&](device&, const gemm_operands& op, std::uint32_t n_groups, std::uint64_t n) {
          const gemm_groups groups{.n_groups = n_groups,
                                   .weights_dev = reinterpret_cast<const void* const*>(op.weight_table),
                                   .first_token_dev = op.first_token,
                                   .max_tokens = op.n_tokens,
                                   .n_tokens = n};
          const auto called =
              grouped_gemm_async(all[0].info, groups, op.x, op.ldx, const_cast<std::uint8_t*>(op.y), op.ldy,
                                 {.bias_dev = op.bias, .accumulate = op.accumulate != 0}, {}, nullptr);
          if (!called) ADD_FAILURE() << called.error().describe();
          return called ? 0 : 1;
        },
        "grouped, more " + std::to_string(more));
  }
}

TEST(gemm_calls, arguments) {
  device d;
  const weight w = make_weight(dtype::bf16, 32, 256, content::trained, 1);
  const auto* packed = d.upload(w.packed, "weight");
  const auto* x = d.upload(bytes(2 * 4 * 256), "X");
  auto* y = d.reserve(2 * 4 * 32, "Y");
  const auto code = [&](const packed_weight& weight, const void* from, std::uint64_t ldx, void* to,
                        std::uint64_t ldy, std::uint64_t n, const gemm_plan& plan = {}) {
    const auto called = gemm_async(weight, from, ldx, to, ldy, n, {.plan = plan}, {}, nullptr);
    return called ? errc::ok : called.error().code;
  };
  const packed_weight good{w.info, packed};
  EXPECT_EQ(code(good, x, 0, y, 0, 4), errc::ok);
  EXPECT_EQ(code(good, x, 0, y, 0, 0), errc::ok);
  EXPECT_EQ(code({w.info, nullptr}, x, 0, y, 0, 4), errc::invalid_argument);
  EXPECT_EQ(code({w.info, packed + 64}, x, 0, y, 0, 4), errc::invalid_argument);
  EXPECT_EQ(code(good, nullptr, 0, y, 0, 4), errc::invalid_argument);
  EXPECT_EQ(code(good, x, 0, nullptr, 0, 4), errc::invalid_argument);
  EXPECT_EQ(code(good, x + 1, 0, y, 0, 4), errc::invalid_argument);
  EXPECT_EQ(code(good, x, 255, y, 0, 4), errc::invalid_argument);
  EXPECT_EQ(code(good, x, 0, y, 31, 4), errc::invalid_argument);
  EXPECT_EQ(
      code(good, x, 0, y, 0, 4, {.kernel = gemm_kernel::tcatbe, .n_tile = 8, .row_blocks = 4, .ctas = 1}),
      errc::unsupported);
  EXPECT_EQ(
      code(good, x, 0, y, 0, 4, {.kernel = gemm_kernel::bulk_mma, .n_tile = 7, .row_blocks = 4, .ctas = 1}),
      errc::unsupported);
  EXPECT_EQ(code(good, x, 0, y, 0, 4,
                 {.kernel = gemm_kernel::warp_mma, .n_tile = 8, .row_blocks = 2, .ctas = 1, .split_k = 2}),
            errc::unsupported);
  packed_weight bent = good;
  bent.info.n_bytes += 128;
  EXPECT_EQ(code(bent, x, 0, y, 0, 4), errc::invalid_argument);
}

}  // namespace
