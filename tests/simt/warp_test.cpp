// The warp's calls against loops over what each lane gave.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "cuda/ptx/ptx.cuh"
#include "simt/random.hpp"
#include "simt/run.hpp"

namespace {

using namespace tersor::cuda;

constexpr u32 kThreads = 64;
constexpr u32 kCtas = 3;

struct inputs {
  std::array<u64, kThreads> wide;
  std::array<u32, kThreads> argument;
  u32 value(u32 i) const { return static_cast<u32>(wide[i]); }
};

struct outputs {
  u32 shfl, add_from_below, ballot, reduce_add, reduce_or;
  u64 shfl_wide, shfl_xor;
  bool any, all;
};

inputs random_inputs(u64 seed) {
  simt::random r(seed);
  inputs in{};
  for (u32 i = 0; i < kThreads; ++i) {
    in.wide[i] = r.next();
    in.argument[i] = static_cast<u32>(r.below(70));
  }
  // Predicates that hold for almost all and almost none.
  const u64 forced = seed % 3;
  for (u64& v : in.wide) {
    v = forced == 0 ? v : forced == 1 && !r.one_in(64) ? v | 1u : v & ~u64{r.one_in(64) ? 0u : 1u};
  }
  return in;
}

outputs expected(const inputs& in, u32 thread) {
  const u32 base = thread / 32 * 32;
  const u32 lane = thread % 32;
  const u32 step = in.argument[base];
  outputs out{};
  out.shfl = in.value(base + in.argument[thread] % 32);
  out.shfl_wide = in.wide[base + in.argument[thread] % 32];
  out.shfl_xor = in.wide[base + ((lane ^ step) & 31u)];
  out.add_from_below = in.value(thread);
  if (lane >= step % 32) {
    out.add_from_below += in.value(thread - step % 32);
  }
  out.all = true;
  for (u32 i = 0; i < 32; ++i) {
    const u32 v = in.value(base + i);
    const bool odd = v % 2 != 0;
    out.ballot |= odd ? 1u << i : 0;
    out.any = out.any || odd;
    out.all = out.all && odd;
    out.reduce_add += v;
    out.reduce_or |= v % 1000;
  }
  return out;
}

outputs measured(const inputs& in) {
  const u32 thread = ptx::thread_index();
  const u32 step = in.argument[thread / 32 * 32];
  const bool odd = in.value(thread) % 2 != 0;
  outputs out{};
  out.shfl = ptx::shfl(in.value(thread), in.argument[thread]);
  out.shfl_wide = ptx::shfl(in.wide[thread], in.argument[thread]);
  out.shfl_xor = ptx::shfl_xor(in.wide[thread], step);
  out.add_from_below = ptx::add_from_below(in.value(thread), step);
  out.ballot = ptx::ballot(odd);
  out.any = ptx::any(odd);
  ptx::sync_warp();
  out.all = ptx::all(odd);
  out.reduce_add = ptx::reduce_add(in.value(thread));
  out.reduce_or = ptx::reduce_or(in.value(thread) % 1000);
  return out;
}

TEST(warp, calls_give_what_the_lanes_gave) {
  for (u64 seed = 0; seed < 60; ++seed) {
    const inputs in = random_inputs(seed);
    std::array<std::array<outputs, kThreads>, kCtas> out{};
    simt::memory none;
    simt::run(none, {.n_ctas = kCtas, .n_threads = kThreads, .seed = seed}, [&](void*) {
      ASSERT_EQ(ptx::cta_count(), kCtas);
      out.at(ptx::cta_index()).at(ptx::thread_index()) = measured(in);
    });
    for (const auto& of_cta : out) {
      for (u32 i = 0; i < kThreads; ++i) {
        const outputs e = expected(in, i);
        const outputs& m = of_cta[i];
        EXPECT_EQ(m.shfl, e.shfl);
        EXPECT_EQ(m.shfl_wide, e.shfl_wide);
        EXPECT_EQ(m.shfl_xor, e.shfl_xor);
        EXPECT_EQ(m.add_from_below, e.add_from_below);
        EXPECT_EQ(m.ballot, e.ballot);
        EXPECT_EQ(m.any, e.any);
        EXPECT_EQ(m.all, e.all);
        EXPECT_EQ(m.reduce_add, e.reduce_add);
        EXPECT_EQ(m.reduce_or, e.reduce_or);
      }
    }
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

TEST(warp, prefix_sum_by_steps) {
  simt::memory none;
  std::array<u32, 32> sums{};
  simt::run(none, {.n_threads = 32}, [&](void*) {
    u32 sum = ptx::thread_index() + 1;
    for (u32 step = 1; step < 32; step *= 2) {
      sum = ptx::add_from_below(sum, step);
    }
    sums.at(ptx::thread_index()) = sum;
  });
  for (u32 i = 0; i < 32; ++i) {
    EXPECT_EQ(sums[i], (i + 1) * (i + 2) / 2);
  }
}

}  // namespace
