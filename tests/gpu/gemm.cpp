// Products with packed weights: every weight bit for bit, sums against double precision, every plan, strides
// and alignments.
#include "gemm_rig.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

using tersor::dtype;
using tersor::matrix_layout;
using tersor::cuda::gemm_kernel;
using tersor::cuda::gemm_plan;

struct size {
  std::uint64_t rows, cols;
};

std::vector<matrix_layout> layouts_of(dtype type) {
  if (type == dtype::bf16) return {matrix_layout::packed, matrix_layout::tcatbe};
  return {matrix_layout::packed};
}

/// Values that a row of X needs to end at a multiple of 16 bytes, which the fastest kernels ask for.
std::uint64_t in_eights(std::uint64_t cols) {
  return (8 - cols % 8) % 8;
}

/// X is the identity, so every output is a weight.
void every_weight(const env& e, gemm_rig& r) {
  const std::vector<size> sizes =
      e.opt.quick ? std::vector<size>{{16, 128}, {37, 200}}
                  : std::vector<size>{{1, 1},       {16, 128},   {17, 8},     {64, 129},   {255, 1000},
                                      {1001, 2051}, {4096, 512}, {515, 4096}, {3003, 1999}};
  // Infinities and NaN spoil every output of their row; the sums are for them.
  const std::vector<weights> kinds = {weights::trained, weights::all_escapes, weights::patterns,
                                      weights::zeros, weights::no_escapes};
  std::uint64_t number = 0;
  for (const dtype type : kWeightTypes) {
    for (const matrix_layout layout : layouts_of(type)) {
      for (const size& at : sizes) {
        for (const weights kind : kinds) {
          if (++number % 2 == 0 && e.opt.quick) continue;
          const test_weight w(e, type, at.rows, at.cols, kind, number, {.layout = layout});
          r.check_every_weight(w,
                               {.n = number % 3 == 0 ? at.cols : 8 + number % 29,
                                .more_x = number % 4 == 0 ? 0 : in_eights(at.cols)},
                               w.label() + " one-hot, " + to_string(kind));
        }
      }
    }
  }
}

/// Odd sizes of all three dimensions, all kinds of weights, with and without bias and what Y holds.
void sums(const env& e, gemm_rig& r) {
  const std::vector<size> sizes =
      e.opt.quick ? std::vector<size>{{33, 300}}
                  : std::vector<size>{{1, 1},    {2, 3},      {15, 127},    {16, 128},    {17, 129},
                                      {100, 77}, {333, 1025}, {1537, 4097}, {5003, 1021}, {129, 9001}};
  const std::vector<std::uint64_t> tokens =
      e.opt.quick ? std::vector<std::uint64_t>{1, 9, 40}
                  : std::vector<std::uint64_t>{1, 2, 7, 8, 9, 16, 31, 33, 64, 65, 129, 257, 1025};
  std::uint64_t number = 0;
  for (const dtype type : kWeightTypes) {
    for (const matrix_layout layout : layouts_of(type)) {
      for (const size& at : sizes) {
        // Sums of any pattern leave fp32.
        const weights any = kWeights[number % kWeights.size()];
        const weights kind = any == weights::patterns ? weights::special : any;
        const test_weight w(e, type, at.rows, at.cols, kind, number, {.layout = layout});
        for (const std::uint64_t n : tokens) {
          ++number;
          r.check(w,
                  {.n = n,
                   .bias = number % 2 == 0,
                   .accumulate = number % 3 == 0,
                   .overlap_previous = number % 4 == 1,
                   .more_x = number % 5 < 3 ? in_eights(at.cols) + number % 2 * 8 : number % 24,
                   .more_y = number % 7 < 4 ? 0 : number % 19,
                   .x_offset = number % 5 == 1 ? 2 * (number % 9) : 0,
                   .y_offset = number % 3 == 2 ? 2 * (number % 9) : 0,
                   .seed = number},
                  w.label() + " n " + std::to_string(n) + ", " + to_string(kind) + ", number " +
                      std::to_string(number));
        }
      }
    }
  }
}

/// Few and many places inside the blocks: escapes that overflow, and none that do.
void escape_places(const env& e, gemm_rig& r) {
  for (const dtype type : kWeightTypes) {
    for (const std::uint32_t places : {8u, 40u, 48u, 64u, 256u, 1024u}) {
      for (const weights kind : {weights::trained, weights::all_escapes}) {
        const test_weight w(e, type, 130, 390, kind, places, {.inline_escapes = places});
        const std::string what = w.label() + " places " + std::to_string(places) + ", " + to_string(kind);
        r.check_every_weight(w, {.n = 16, .more_x = in_eights(w.cols)}, what);
        r.check(w, {.n = 5, .more_x = in_eights(w.cols), .seed = places}, what);
        r.check(w, {.n = 5, .seed = places}, what + ", X not aligned");
      }
    }
  }
}

/// Whatever can be forced gives the same sums.
void every_plan(const env& e, section& s, gemm_rig& r) {
  std::uint64_t tried = 0, ran = 0;
  for (const dtype type : kWeightTypes) {
    for (const matrix_layout layout : layouts_of(type)) {
      const test_weight big(e, type, e.opt.quick ? 80 : 1100, e.opt.quick ? 400 : 2504, weights::trained, 5,
                            {.layout = layout});
      const test_weight small(e, type, 31, 250, weights::all_escapes, 6, {.layout = layout});
      for (const gemm_plan& plan : all_plans(layout, r.device().multiprocessors)) {
        if (++tried % 5 != 0 && e.opt.quick) continue;
        const std::string what = big.label() + " " + tersor::cuda::to_string(plan);
        const std::uint64_t n = plan.n_tile == 0 ? 5 : plan.n_tile - 1;
        if (!r.check(big, {.n = n, .plan = plan, .bias = true, .more_y = 3}, what)) continue;
        ++ran;
        r.check(big, {.n = 2 * n + 3, .plan = plan, .accumulate = true, .overlap_previous = true}, what);
        r.check(big, {.n = 3, .plan = plan, .more_x = 16, .x_offset = 32, .y_offset = 6}, what);
        r.check(big, {.n = 3, .plan = plan, .more_x = 1, .x_offset = 2}, what + ", X not aligned");
        r.check_every_weight(small, {.n = 25, .plan = plan, .more_x = in_eights(small.cols)},
                             what + ", one-hot");
        gemm_plan other = plan;
        for (const std::uint32_t ctas : {1u, 3u, 1000u}) {
          other.ctas = ctas;
          r.check(small, {.n = 9, .plan = other, .more_x = in_eights(small.cols)},
                  what + ", " + std::to_string(ctas) + " CTAs");
        }
      }
    }
  }
  s.note(std::to_string(ran) + " forced plans ran, of " + std::to_string(tried) +
         " (the others are not compiled)");
  s.check(ran >= (e.opt.quick ? 4u : 30u), "few plans ran: " + std::to_string(ran));
}

/// The library takes what is wide, and the plan may change with n: the edges give the same.
void planned(const env& e, section& s, gemm_rig& r) {
  const test_weight w(e, dtype::bf16, e.opt.quick ? 128 : 2048, e.opt.quick ? 256 : 2048, weights::trained,
                      9);
  std::string kernels;
  std::string last;
  for (std::uint64_t n = 1; n <= (e.opt.quick ? 128u : 4096u); n = n < 32 ? n + 1 : n * 2) {
    const gemm_plan plan = tersor::cuda::plan_gemm(
        {.layout = w.layout, .type = w.type, .rows = w.rows, .cols = w.cols, .n = n}, r.device());
    const std::string name = tersor::cuda::to_string(plan);
    if (name != last) kernels += (kernels.empty() ? "" : "; ") + std::to_string(n) + ": " + name;
    last = name;
    s.check(tersor::cuda::parse_gemm_plan(name) == plan, "a plan's text is not the plan", name);
    s.check(r.check(w, {.n = n, .seed = n}, "planned, n " + std::to_string(n)),
            "the planned kernel cannot run", name);
  }
  s.note("plans of " + w.label() + " by n: " + kernels);
}

}  // namespace

void run_gemm(const env& e, section& s) {
  gemm_rig r(e, s);
  every_weight(e, r);
  sums(e, r);
  escape_places(e, r);
  every_plan(e, s, r);
  planned(e, s, r);
}

}  // namespace gpu_test
