// The GEMM kernels on the twin: odd shapes, every content, rings of few stages, clusters, groups.
#include <cstring>

#include <gtest/gtest.h>

#include "cuda/gemm/bulk_gemm.cuh"
#include "gemm_rig.hpp"

namespace {

using namespace twin;
using tersor::dtype;
using namespace tersor::cuda;

/// How a product is cut.
struct cut {
  std::uint32_t ctas = 1, split_k = 1, more_stages = 0;
};

bulk_gemm_launch launch_of(const weight& w, const gemm_operands& op, const cut& c) {
  bulk_gemm_launch launch;
  launch.op = op;
  launch.sections = {.blocks_at = w.info.blocks_at,
                     .overflow_at = w.info.overflow_at,
                     .n_overflow = w.info.n_overflow,
                     .block_bytes = w.info.block_bytes,
                     .inline_places = w.info.inline_escapes};
  launch.row_blocks = static_cast<std::uint32_t>((w.rows + 15) / 16);
  launch.col_blocks = static_cast<std::uint32_t>((w.cols + 127) / 128);
  launch.ctas = c.ctas;
  launch.split_k = c.split_k;
  return launch;
}

template <class Weight, class Sizes>
int run_bulk(device& d, bulk_gemm_launch launch, std::uint32_t n_groups, const cut& c) {
  launch.stages = 1 + c.more_stages;
  const simt::tensor_map x{.base = reinterpret_cast<const std::byte*>(launch.op.x),
                           .cols = launch.op.cols,
                           .rows = launch.x_rows,
                           .stride_bytes = 2 * launch.op.ldx,
                           .box_rows = Sizes::kTokens};
  std::memcpy(launch.x_map, &x, sizeof x);
  return d.run({.n_ctas = c.ctas * c.split_k * n_groups,
                .row_ctas = c.ctas * c.split_k,
                .cluster = c.split_k,
                .n_threads = Sizes::kThreads,
                .shared_bytes = Sizes::bytes(launch.stages, launch.sections.block_bytes)},
               [&](void* memory) { bulk_gemm_cta<Weight, Sizes>(launch, static_cast<u8*>(memory)); });
}

template <u32 kTokens, u32 kTeams, u32 kTeam, bool kGroups = false>
product_launcher bulk(const weight& w, const cut& c) {
  return [&w, c](device& d, const gemm_operands& op, std::uint32_t n_groups, std::uint64_t x_rows) {
    bulk_gemm_launch launch = launch_of(w, op, c);
    launch.x_rows = x_rows;
    return w.type == dtype::f16
               ? run_bulk<f16_weight, bulk_gemm_sizes<f16_weight, kTokens, kTeams, kTeam, kGroups>>(
                     d, launch, n_groups, c)
               : run_bulk<bf16_weight, bulk_gemm_sizes<bf16_weight, kTokens, kTeams, kTeam, kGroups>>(
                     d, launch, n_groups, c);
  };
}

using variant = product_launcher (*)(const weight&, const cut&);
/// The last two with wgmma.
constexpr std::array<variant, 6> kVariants = {bulk<8, 2, 4>,  bulk<8, 1, 8>,        bulk<16, 4, 2>,
                                              bulk<32, 2, 2>, bulk<16, 4, 1, true>, bulk<64, 4, 2, true>};

/// Values that a row of X needs to end at a multiple of 16 bytes, which the copy engine asks for.
std::uint64_t in_eights(std::uint64_t cols) {
  return (8 - cols % 8) % 8;
}

struct shape {
  std::uint64_t rows, cols, n;
};
constexpr std::array kShapes = {shape{1, 1, 1},     shape{16, 128, 8},  shape{17, 129, 3}, shape{33, 300, 9},
                                shape{50, 640, 17}, shape{100, 77, 33}, shape{65, 1030, 5}};

class gemm : public testing::TestWithParam<dtype> {};

TEST_P(gemm, shapes_contents_and_cuts) {
  std::uint64_t number = 0;
  for (const shape& s : kShapes) {
    for (const content what : kContents) {
      for (std::size_t v = 0; v < kVariants.size(); ++v) {
        if (left_out(++number, 6)) continue;
        const weight w = make_weight(GetParam(), s.rows, s.cols, what, number,
                                     {.inline_escapes = number % 3 == 0   ? 8u
                                                        : number % 3 == 1 ? 40u
                                                                          : 200u});
        const cut c{.ctas = static_cast<std::uint32_t>(1 + number % 4),
                    .split_k = static_cast<std::uint32_t>(1 + number / 2 % 3),
                    .more_stages = static_cast<std::uint32_t>(number % 3)};
        const product p{.n = s.n,
                        .bias = number % 2 == 0,
                        .accumulate = number % 3 == 0,
                        .more_x = in_eights(s.cols) + number % 2 * 8,
                        .more_y = number % 4,
                        .x_offset = 16 * (number % 3),
                        .y_offset = 2 * (number % 5),
                        .seed = number};
        device d(number);
        check_product(d, {&w}, p, kVariants[v](w, c),
                      std::to_string(s.rows) + " x " + std::to_string(s.cols) + " n " + std::to_string(s.n) +
                          " variant " + std::to_string(v) + " number " + std::to_string(number));
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(gemm, every_weight_bit_for_bit) {
  for (std::size_t v = 0; v < kVariants.size(); ++v) {
    const content what = v % 2 == 0 ? content::trained : content::all_escapes;
    const weight w = make_weight(GetParam(), 40, 150, what, v);
    device d(v);
    check_product(d, {&w}, {.n = w.cols, .one_hot = true, .more_x = in_eights(w.cols)},
                  kVariants[v](w, {.ctas = 2, .split_k = 1, .more_stages = 1}),
                  "variant " + std::to_string(v));
    if (HasFailure()) return;
  }
}

TEST_P(gemm, groups_of_tokens) {
  const std::array<weight, 4> all = {make_weight(GetParam(), 40, 200, content::trained, 1),
                                     make_weight(GetParam(), 40, 200, content::trained, 2),
                                     make_weight(GetParam(), 40, 200, content::trained, 3),
                                     make_weight(GetParam(), 40, 200, content::trained, 4)};
  std::vector<const weight*> weights;
  for (const weight& w : all) weights.push_back(&w);
  for (std::size_t v = 0; v < kVariants.size(); ++v) {
    const product p{.bias = v % 2 == 0, .more_y = v, .groups = {3, 0, 19, 1}, .seed = v};
    device d(v);
    check_product(d, weights, p,
                  kVariants[v](all[0], {.ctas = 2, .split_k = static_cast<std::uint32_t>(1 + v % 2)}),
                  "groups, variant " + std::to_string(v));
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(twin, gemm, testing::Values(dtype::bf16, dtype::f16),
                         [](const auto& one) { return std::string(tersor::to_string(one.param)); });

}  // namespace
