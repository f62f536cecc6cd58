// How links of GPUs cut transfers, choose methods and judge verdicts; no GPU needed.
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "transfer/device/parts.hpp"

namespace {

using namespace tersor;
using namespace tersor::transfer;
using namespace tersor::transfer::device;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

std::vector<link_region> regions_of(const std::vector<std::uint64_t>& n_values) {
  std::vector<link_region> all;
  for (const std::uint64_t n : n_values) all.push_back({.n_values = n});
  return all;
}

/// Every value is in one piece, in order, and everything fits where it is put.
void check_plan(const part_plan& plan, const std::vector<link_region>& regions, const part_rule& rule) {
  const std::uint64_t slot = slot_bytes(rule.code, rule.type, rule.sizes);
  std::uint32_t region = 0;
  std::uint64_t next = 0, store = 0, bytes = 0;
  std::size_t n_pieces = 0;
  for (const part& p : plan.parts) {
    ASSERT_EQ(p.first_piece, n_pieces);
    ASSERT_GE(p.n_pieces, 1U);
    ASSERT_LE(p.n_pieces, kMostPieces);
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < p.n_pieces; ++i) {
      const piece& one = plan.pieces[n_pieces++];
      while (next == regions[region].n_values) {
        ++region;
        next = 0;
      }
      ASSERT_EQ(one.region, region);
      ASSERT_EQ(one.first_value, next);
      ASSERT_GT(one.n_values, 0U);
      ASSERT_EQ(one.first_value % kCutValues, 0U);
      ASSERT_GE(one.capacity, cuda::encode_bound(rule.code, rule.type, one.n_values));
      ASSERT_EQ(one.capacity % kFrameAlignment, 0U);
      ASSERT_EQ(one.slot_at, at);
      ASSERT_EQ(one.store_at, store);
      at += one.capacity;
      store += one.capacity;
      next += one.n_values;
      bytes += one.n_values * value_bytes(rule.type);
    }
    ASSERT_LE(at, slot);
  }
  ASSERT_EQ(n_pieces, plan.pieces.size());
  ASSERT_EQ(store, plan.store_bytes);
  ASSERT_EQ(bytes, plan.n_bytes);
  std::uint64_t total = 0;
  for (const link_region& r : regions) total += r.n_values * value_bytes(rule.type);
  ASSERT_EQ(bytes, total);
}

TEST(device_link, every_value_is_in_one_piece) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::uint64_t> sizes(1 + random() % 40);
    for (std::uint64_t& n : sizes)
      n = random() % 4 == 0 ? random() % 3 : random() % (std::uint64_t{1} << (random() % 24));
    const part_sizes cut{.first_bytes = std::uint64_t{16384} << random() % 6,
                         .most_bytes = kMiB << random() % 6,
                         .n_slots = 2};
    const auto regions = regions_of(sizes);
    for (const link_method method : {link_method::pull, link_method::push, link_method::copy}) {
      for (const dtype type : {dtype::bf16, dtype::f8_e5m2}) {
        const codec c = random() % 2 == 0 ? codec::rank : codec::top16;
        const part_rule rule = rule_of(method, c, type, cut);
        const auto plan = plan_parts(regions, rule);
        ASSERT_TRUE(plan) << plan.error().describe();
        check_plan(*plan, regions, rule);
      }
    }
  }
}

TEST(device_link, parts_grow_and_shrink_as_the_method_needs) {
  const part_sizes cut{.first_bytes = 8 * kMiB, .most_bytes = 64 * kMiB, .n_slots = 3};
  const auto regions = regions_of({512 * kMiB / 2});
  const auto bytes_of = [&](link_method method) {
    std::vector<std::uint64_t> all;
    const auto plan = plan_parts(regions, rule_of(method, codec::rank, dtype::bf16, cut));
    for (const part& p : plan->parts) all.push_back(plan->pieces[p.first_piece].n_values * 2 / kMiB);
    return all;
  };
  const auto pull = bytes_of(link_method::pull), push = bytes_of(link_method::push),
             copy = bytes_of(link_method::copy);
  EXPECT_EQ(pull.front(), 8U);
  EXPECT_EQ(pull[1], 16U);
  EXPECT_GE(pull.back(), 8U);
  EXPECT_EQ(push.front(), 64U);
  EXPECT_LE(push.back(), 12U);
  EXPECT_EQ(copy.front(), 8U);
  EXPECT_LE(copy.back(), 12U);
}

TEST(device_link, nothing_is_no_part) {
  const part_rule rule = rule_of(link_method::pull, codec::rank, dtype::bf16, {});
  EXPECT_TRUE(plan_parts({}, rule)->parts.empty());
  EXPECT_TRUE(plan_parts(regions_of({0, 0}), rule)->parts.empty());
}

TEST(device_link, bad_sizes_are_refused) {
  const auto code = [](const part_sizes& cut, codec c = codec::rank, dtype type = dtype::bf16) {
    const auto plan = plan_parts(regions_of({100}), {.code = c, .type = type, .sizes = cut});
    return plan ? errc::ok : plan.error().code;
  };
  EXPECT_EQ(code({}), errc::ok);
  EXPECT_EQ(code({.first_bytes = 16383}), errc::invalid_argument);
  EXPECT_EQ(code({.first_bytes = 2 * kMiB, .most_bytes = kMiB}), errc::invalid_argument);
  EXPECT_EQ(code({.most_bytes = std::uint64_t{1} << 41}), errc::invalid_argument);
  EXPECT_EQ(code({.n_slots = 0}), errc::invalid_argument);
  EXPECT_EQ(code({}, codec::raw), errc::unsupported);
  EXPECT_EQ(code({}, codec::rank, dtype::f32), errc::unsupported);
  const part_rule rule = rule_of(link_method::pull, codec::rank, dtype::bf16, {});
  const auto huge = regions_of({std::uint64_t{1} << 62, std::uint64_t{1} << 62});
  EXPECT_EQ(plan_parts(huge, rule).error().code, errc::size_overflow);
  const auto wraps = regions_of({std::numeric_limits<std::uint64_t>::max()});
  EXPECT_EQ(plan_parts(wraps, rule).error().code, errc::size_overflow);
}

TEST(device_link, raw_runs_that_lie_together_are_one_copy) {
  std::vector<std::byte> a(100), b(100);
  const std::vector<link_region> regions = {{.src = a.data(), .dst = b.data(), .n_values = 10},
                                            {.src = a.data() + 20, .dst = b.data() + 20, .n_values = 0},
                                            {.src = a.data() + 20, .dst = b.data() + 20, .n_values = 5},
                                            {.src = a.data() + 30, .dst = b.data() + 40, .n_values = 5}};
  const auto runs = merge_runs(regions, dtype::bf16);
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].n_bytes, 30U);
  EXPECT_EQ(runs[1].src, a.data() + 30);
  EXPECT_EQ(runs[1].n_bytes, 10U);
}

TEST(device_link, small_transfers_go_raw) {
  for (const codec c : {codec::rank, codec::top16}) {
    const auto peers = known_link(c, "NVIDIA H200");
    ASSERT_TRUE(peers);
    EXPECT_EQ(choose_method(kMiB, *peers), link_method::raw);
    EXPECT_EQ(choose_method(16 * kMiB, *peers), link_method::raw);
    EXPECT_EQ(choose_method(1024 * kMiB, *peers), link_method::pull);
    const auto host = known_host_link(c, "NVIDIA H200");
    ASSERT_TRUE(host);
    EXPECT_EQ(choose_method(kMiB, *host), link_method::raw);
    EXPECT_EQ(choose_method(256 * kMiB, *host), link_method::copy);
  }
  EXPECT_FALSE(known_link(codec::raw, "NVIDIA H200"));
  EXPECT_FALSE(known_link(codec::rank, "another"));
}

TEST(device_link, speeds_that_mean_nothing_go_raw) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (const double speed : {0.0, -1.0, kNan}) {
    const link_speed s{.raw = {1, 50}, .coded = {1, speed}};
    EXPECT_EQ(choose_method(kMiB, s), link_method::raw);
  }
  EXPECT_EQ(choose_method(kMiB, {.raw = {kNan, 50}, .coded = {1, 100}}), link_method::raw);
  EXPECT_EQ(choose_method(kMiB, {.raw = {0, 100}, .coded = {0, 101}}), link_method::raw);
  EXPECT_EQ(choose_method(kMiB, {.raw = {0, 100}, .coded = {0, 103}, .coded_method = link_method::push}),
            link_method::push);
}

TEST(device_link, verdicts) {
  std::vector<link_verdict> all(3);
  EXPECT_TRUE(check_verdicts(all));
  const auto code_with = [&](auto&& change) {
    std::vector<link_verdict> changed = all;
    change(changed[1]);
    const status s = check_verdicts(changed);
    return s ? errc::ok : s.error().code;
  };
  EXPECT_EQ(code_with([](link_verdict& v) { v.sent.code = 2; }), errc::destination_too_small);
  EXPECT_EQ(code_with([](link_verdict& v) { v.received.code = 7; }), errc::digest_mismatch);
  EXPECT_EQ(code_with([](link_verdict& v) { v.again.code = 7; }), errc::digest_mismatch);
  EXPECT_EQ(code_with([](link_verdict& v) { v.received.digest = 1; }), errc::mismatch);
  EXPECT_EQ(code_with([](link_verdict& v) { v.sent.frame_bytes = 1; }), errc::mismatch);
}

TEST(device_link, staging) {
  EXPECT_EQ(staging_bytes(codec::raw, dtype::bf16, {}), 0U);
  EXPECT_EQ(staging_bytes(codec::rank, dtype::f32, {}), 0U);
  const part_sizes cut{.first_bytes = kMiB, .most_bytes = 2 * kMiB, .n_slots = 5};
  EXPECT_EQ(staging_bytes(codec::rank, dtype::bf16, cut), 5 * slot_bytes(codec::rank, dtype::bf16, cut));
}

#ifndef TERSOR_TEST_CUDA
TEST(device_link, a_build_without_cuda_says_so) {
  EXPECT_EQ(device_link::create({}).error().code, errc::backend_unavailable);
  EXPECT_EQ(host_link::create({}).error().code, errc::backend_unavailable);
  EXPECT_EQ(pinned_verdicts::create(1).error().code, errc::backend_unavailable);
  EXPECT_EQ(shared_staging::create(0, 1).error().code, errc::backend_unavailable);
  EXPECT_EQ(shared_event::create(0).error().code, errc::backend_unavailable);
  EXPECT_EQ(cuda::recheck_async(codec::rank, {}, {}, nullptr).error().code, errc::backend_unavailable);
  EXPECT_EQ(cuda::copy_tails_async({}, nullptr).error().code, errc::backend_unavailable);
}
#endif

TEST(device_link, a_frame_s_prefix_ends_where_its_tails_begin) {
  EXPECT_EQ(cuda::frame_prefix_size(codec::raw, dtype::bf16, 100), 0U);
  const auto ctx = context::create(1);
  ASSERT_TRUE(ctx);
  for (const codec c : {codec::rank, codec::top16}) {
    for (const std::uint64_t n : {1ULL, 8192ULL, 20001ULL}) {
      std::vector<std::byte> data(2 * n, std::byte{63});
      const auto frame = encode(*ctx, {.type = dtype::bf16, .shape = {&n, 1}, .data = data},
                                {.codec = c, .raw_fallback = false});
      ASSERT_TRUE(frame);
      const auto info = inspect(*frame);
      ASSERT_TRUE(info);
      const std::uint64_t prefix = cuda::frame_prefix_size(c, dtype::bf16, n);
      EXPECT_EQ(prefix % 128, 0U);
      EXPECT_EQ((prefix + 4 * info->tail_words + 127) / 128 * 128, frame->size());
    }
  }
}

}  // namespace
