// The host part of the CUDA room: addresses of pages, bounds, slot sizes, the cost model. Needs no GPU.
#include <algorithm>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include <tersor/cuda.hpp>

namespace {

using tersor::codec;
using tersor::dtype;
using tersor::errc;
using namespace tersor::cuda::kv;

constexpr std::uint64_t kMax64 = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint32_t kMax32 = std::numeric_limits<std::uint32_t>::max();

/// Addresses that are computed with and never used.
void* address(std::uint64_t value) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(value));
}
std::uint64_t number(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

struct sizes {
  std::uint64_t blocks;
  std::uint32_t tokens, heads, dim;
};
struct place {
  std::uint64_t kv, page, token, head, i;
};

/// Row-major index in the full tensor of one layer, dimension by dimension as the order's comment names them.
std::uint64_t index_in_layer(pool_order order, const sizes& n, const place& at) {
  const auto row_major = [](std::initializer_list<std::pair<std::uint64_t, std::uint64_t>> dims) {
    std::uint64_t index = 0;
    for (const auto& [size, k] : dims) index = index * size + k;
    return index;
  };
  switch (order) {
    case pool_order::kv_blocks_nhd:
      return row_major(
          {{2, at.kv}, {n.blocks, at.page}, {n.tokens, at.token}, {n.heads, at.head}, {n.dim, at.i}});
    case pool_order::blocks_kv_nhd:
      return row_major(
          {{n.blocks, at.page}, {2, at.kv}, {n.tokens, at.token}, {n.heads, at.head}, {n.dim, at.i}});
    case pool_order::kv_blocks_hnd:
      return row_major(
          {{2, at.kv}, {n.blocks, at.page}, {n.heads, at.head}, {n.tokens, at.token}, {n.dim, at.i}});
    case pool_order::blocks_kv_hnd:
      return row_major(
          {{n.blocks, at.page}, {2, at.kv}, {n.heads, at.head}, {n.tokens, at.token}, {n.dim, at.i}});
    case pool_order::mla:
      return row_major({{n.blocks, at.page}, {n.tokens, at.token}, {n.dim, at.i}});
  }
  return kMax64;
}

std::uint64_t address_in_pool(const page_layout& layout, const void* pool, const place& at) {
  const std::uint64_t value = at.page * layout.page_stride + at.token * layout.token_stride +
                              at.head * layout.head_stride + at.i * layout.value_stride;
  return number(pool) + value * tersor::value_bytes(layout.type);
}

place random_place(std::mt19937_64& rng, const sizes& n, std::uint64_t parts) {
  return {rng() % parts, rng() % n.blocks, rng() % n.tokens, rng() % n.heads, rng() % n.dim};
}

constexpr std::array kOrders = {pool_order::kv_blocks_nhd, pool_order::blocks_kv_nhd,
                                pool_order::kv_blocks_hnd, pool_order::blocks_kv_hnd, pool_order::mla};
constexpr std::array kDtypes = {dtype::bf16, dtype::f16, dtype::f8_e4m3, dtype::f8_e5m2};

TEST(cuda_host, pools_agree_with_the_index_in_the_tensor) {
  std::mt19937_64 rng(1);
  for (const pool_order order : kOrders) {
    const bool mla = order == pool_order::mla;
    const std::uint64_t parts = mla ? 1 : 2;
    for (int round = 0; round < 50; ++round) {
      const sizes n{.blocks = 1 + rng() % 1000,
                    .tokens = static_cast<std::uint32_t>(1 + rng() % 64),
                    .heads = mla ? 1 : static_cast<std::uint32_t>(1 + rng() % 16),
                    .dim = static_cast<std::uint32_t>(1 + rng() % 600)};
      const dtype type = kDtypes[rng() % kDtypes.size()];
      std::vector<void*> layers(1 + rng() % 5);
      for (void*& layer : layers) layer = address(1 + (rng() >> 8));
      const auto made = make_pools(order, type, layers, n.blocks, n.tokens, n.heads, n.dim);
      ASSERT_TRUE(made) << made.error().describe();
      ASSERT_EQ(made->pools.size(), parts * layers.size());
      EXPECT_EQ(made->layout.page_values(), std::uint64_t{n.tokens} * n.heads * n.dim);
      EXPECT_EQ(made->layout.n_blocks, n.blocks);
      EXPECT_EQ(made->layout.type, type);
      for (int k = 0; k < 200; ++k) {
        const std::uint64_t layer = rng() % layers.size();
        const place at = random_place(rng, n, parts);
        const void* pool = made->pools[layer * parts + at.kv];
        ASSERT_EQ(address_in_pool(made->layout, pool, at),
                  number(layers[layer]) + index_in_layer(order, n, at) * tersor::value_bytes(type));
      }
    }
  }
}

TEST(cuda_host, separate_pools_agree_with_the_index_in_the_tensor) {
  std::mt19937_64 rng(2);
  const sizes n{.blocks = 77, .tokens = 16, .heads = 3, .dim = 80};
  const std::vector<void*> pools = {address(0x10000), address(0x9000000), address(0x7)};
  for (const bool hnd : {false, true}) {
    const auto made = make_separate_pools(hnd, dtype::bf16, pools, n.blocks, n.tokens, n.heads, n.dim);
    ASSERT_TRUE(made);
    ASSERT_EQ(made->pools, pools);
    for (int k = 0; k < 2000; ++k) {
      place at = random_place(rng, n, 1);
      const std::uint64_t pool = rng() % pools.size();
      // The first half of [2, blocks, ...] is such a tensor.
      const std::uint64_t index =
          index_in_layer(hnd ? pool_order::kv_blocks_hnd : pool_order::kv_blocks_nhd, n, at);
      ASSERT_EQ(address_in_pool(made->layout, pools[pool], at), number(pools[pool]) + 2 * index);
    }
  }
}

errc code_of(const tersor::result<page_pools>& made) {
  return made ? errc::ok : made.error().code;
}

TEST(cuda_host, pools_refuse_zero_and_unknown_arguments) {
  const std::vector<void*> one = {address(4096)};
  const std::vector<void*> null = {address(4096), nullptr};
  for (const pool_order order : kOrders) {
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, one, 8, 16, 1, 128)), errc::ok);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, one, 0, 16, 1, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, one, 8, 0, 1, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, one, 8, 16, 0, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, one, 8, 16, 1, 0)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, {}, 8, 16, 1, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, null, 8, 16, 1, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::f32, one, 8, 16, 1, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_pools(order, dtype::u8, one, 8, 16, 1, 128)), errc::invalid_argument);
  }
  EXPECT_EQ(code_of(make_pools(pool_order::mla, dtype::bf16, one, 8, 16, 2, 576)), errc::invalid_argument);
  EXPECT_EQ(code_of(make_pools(static_cast<pool_order>(5), dtype::bf16, one, 8, 16, 1, 128)),
            errc::invalid_argument);
  for (const bool hnd : {false, true}) {
    EXPECT_EQ(code_of(make_separate_pools(hnd, dtype::bf16, one, 0, 16, 8, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_separate_pools(hnd, dtype::bf16, {}, 8, 16, 8, 128)), errc::invalid_argument);
    EXPECT_EQ(code_of(make_separate_pools(hnd, dtype::bf16, null, 8, 16, 8, 128)), errc::invalid_argument);
  }
}

TEST(cuda_host, pools_refuse_sizes_that_leave_64_bits) {
  const std::vector<void*> low = {address(4096)};
  const std::vector<void*> high = {address(kMax64 - 4095)};
  for (const pool_order order : kOrders) {
    const std::uint32_t heads = order == pool_order::mla ? 1 : kMax32;
    const std::uint64_t parts = order == pool_order::mla ? 1 : 2;
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, low, kMax64, kMax32, heads, kMax32)),
              errc::size_overflow);
    // One block of 128 values more than 2^64 bytes hold.
    const std::uint64_t fit = kMax64 / (parts * 128 * 2);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, low, fit + 1, 1, 1, 128)), errc::size_overflow);
    // The tensor's bytes are counted, not its values: the same number of blocks fits with one byte each.
    EXPECT_EQ(code_of(make_pools(order, dtype::f8_e4m3, low, fit + 1, 1, 1, 128)), errc::ok);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, high, 1, 1, 1, 128)), errc::ok);
    EXPECT_EQ(code_of(make_pools(order, dtype::bf16, high, 16, 1, 1, 128)), errc::size_overflow);
  }
  EXPECT_EQ(code_of(make_separate_pools(true, dtype::bf16, low, kMax64, 16, 8, 128)), errc::size_overflow);
  EXPECT_EQ(code_of(make_separate_pools(true, dtype::bf16, high, 16, 1, 1, 128)), errc::size_overflow);
}

TEST(cuda_host, frame_sizes_are_those_of_the_cpu) {
  for (const dtype type : kDtypes) {
    for (const std::uint32_t tokens : {1U, 16U, 64U, 257U}) {
      const page_layout layout{
          .type = type, .n_blocks = 8, .block_size = tokens, .kv_heads = 3, .head_dim = 72};
      const std::uint64_t values = layout.page_values();
      const std::uint64_t raw = tersor::encode_bound(codec::raw, type, values);
      EXPECT_EQ(raw_frame_bytes(layout), raw);
      EXPECT_EQ(raw % 128, 0U);
      for (const codec c : {codec::rank, codec::top16}) {
        for (const std::uint32_t pages : {1U, 7U, 1000U}) {
          EXPECT_EQ(page_frame_bound(c, layout, page_frames::gathered, pages),
                    tersor::encode_bound(c, type, values * pages));
          EXPECT_EQ(page_frame_bound(c, layout, page_frames::slots, pages),
                    tersor::encode_bound(c, type, values));
        }
      }
      EXPECT_EQ(page_frame_bound(codec::raw, layout, page_frames::slots, 1), 0U);
    }
  }
  const page_layout huge{.block_size = kMax32, .kv_heads = kMax32, .head_dim = kMax32};
  EXPECT_EQ(raw_frame_bytes(huge), 0U);
  EXPECT_EQ(page_frame_bound(codec::rank, huge, page_frames::slots, 1), 0U);
  const page_layout wide{.block_size = kMax32, .kv_heads = kMax32, .head_dim = 1};
  EXPECT_EQ(page_frame_bound(codec::rank, wide, page_frames::gathered, kMax32), 0U);
  const page_layout wrong{.type = dtype::f32};
  EXPECT_EQ(page_frame_bound(codec::rank, wrong, page_frames::slots, 1), 0U);
}

TEST(cuda_host, suggested_slots_cover_what_was_asked) {
  std::vector<std::uint64_t> frames;
  for (std::uint64_t i = 1; i <= 100; ++i) frames.push_back(1000 * i);
  std::ranges::shuffle(frames, std::mt19937(3));
  const auto up = [](std::uint64_t n) { return (n + 127) / 128 * 128; };
  EXPECT_EQ(suggest_slot_bytes(frames, 0.5), up(50000));
  EXPECT_EQ(suggest_slot_bytes(frames, 0.99), up(99000));
  EXPECT_EQ(suggest_slot_bytes(frames, 1), up(100000));
  EXPECT_EQ(suggest_slot_bytes(frames, 0.07), up(7000));
  EXPECT_EQ(suggest_slot_bytes(frames, 1e-9), up(1000));
  const std::vector<std::uint64_t> same(5, 25600);
  EXPECT_EQ(suggest_slot_bytes(same, 0.5), 25600U);
  EXPECT_EQ(suggest_slot_bytes(same, 1), 25600U);
  EXPECT_EQ(suggest_slot_bytes({}, 0.5), 0U);
  for (const double wrong : {0.0, -1.0, 1.0001, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(suggest_slot_bytes(same, wrong), 0U);
  }
  const std::vector<std::uint64_t> largest = {128, kMax64 - 127, kMax64};
  EXPECT_EQ(suggest_slot_bytes(largest, 0.3), 128U);
  EXPECT_EQ(suggest_slot_bytes(largest, 0.6), kMax64 - 127);
  EXPECT_EQ(suggest_slot_bytes(largest, 1), 0U);
}

// 10 us + n / 1000 GB/s to encode, 5 us + n / 2000 GB/s to decode, half the bytes.
constexpr codec_speed kRound{
    .encode_gb_s = 1000, .decode_gb_s = 2000, .encode_us = 10, .decode_us = 5, .ratio = 2};

TEST(cuda_host, transfer_costs_are_those_worked_out_by_hand) {
  // 100 MB over 50 GB/s: plain 2000 us; encoded 10 + 100 + 1000 + 50 + 5.
  const transfer_cost cost = estimate_transfer(100'000'000, 50, kRound);
  EXPECT_NEAR(cost.plain_us, 2000, 1e-6);
  EXPECT_NEAR(cost.encoded_us, 1165, 1e-6);
  // Over 50 GB/s the link saves 0.01 us a kB and the codec takes 0.0015 us of it: 15 us are earned back at 15
  // / 0.0085 kB.
  EXPECT_FALSE(worth_it(1'764'705, 50, kRound));
  EXPECT_TRUE(worth_it(1'764'706, 50, kRound));
  // Without fixed costs it pays below 1 / (2 * 0.0015) = 333.3 GB/s, whatever the size.
  codec_speed free = kRound;
  free.encode_us = free.decode_us = 0;
  EXPECT_TRUE(worth_it(1'000'000'000, 333, free));
  EXPECT_FALSE(worth_it(1'000'000'000, 334, free));
}

TEST(cuda_host, worth_it_is_monotone) {
  bool before = false;
  for (std::uint64_t n = 1024; n < (1ULL << 36); n += n / 3) {
    const bool now = worth_it(n, 100, kRound);
    EXPECT_TRUE(now || !before) << n;
    before = now;
  }
  EXPECT_TRUE(before);
  for (double link = 0.5; link < 1000; link *= 1.1) {
    const bool now = worth_it(64 << 20, link, kRound);
    EXPECT_TRUE(before || !now) << link;
    before = now;
  }
  EXPECT_FALSE(before);
}

TEST(cuda_host, worth_it_refuses_what_is_no_speed) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double link : {0.0, -1.0, kNan, kInfinity})
    EXPECT_FALSE(worth_it(1 << 30, link, kRound)) << link;
  for (const double wrong : {0.0, -1.0, kNan}) {
    codec_speed speed = kRound;
    speed.encode_gb_s = wrong;
    EXPECT_FALSE(worth_it(1 << 30, 1, speed));
    speed = kRound;
    speed.decode_gb_s = wrong;
    EXPECT_FALSE(worth_it(1 << 30, 1, speed));
    speed = kRound;
    speed.ratio = wrong;
    EXPECT_FALSE(worth_it(1 << 30, 1, speed));
  }
  EXPECT_FALSE(worth_it(1 << 30, 1, codec_speed{}));
  EXPECT_FALSE(worth_it(0, 1, kRound));
}

TEST(cuda_host, known_devices_have_figures_that_make_sense) {
  for (const char* name : {"NVIDIA H200", "NVIDIA H100 80GB HBM3"}) {
    for (const codec c : {codec::rank, codec::top16}) {
      const auto speed = known_speed(c, name);
      ASSERT_TRUE(speed) << name;
      EXPECT_GT(speed->encode_gb_s, 500);
      EXPECT_GT(speed->decode_gb_s, 500);
      EXPECT_GT(speed->encode_us, 0);
      EXPECT_GT(speed->decode_us, 0);
      EXPECT_GT(speed->ratio, 1.3);
      EXPECT_TRUE(worth_it(256 << 20, 12.5, c, name));
      EXPECT_FALSE(worth_it(4096, 12.5, c, name));
    }
    EXPECT_FALSE(known_speed(codec::raw, name));
  }
  EXPECT_TRUE(known_speed(codec::rank, "NVIDIA H200 NVL"));
  for (const char* name : {"", "NVIDIA H20", "NVIDIA H2000", "NVIDIA H100 PCIe", "NVIDIA A100"}) {
    EXPECT_FALSE(known_speed(codec::rank, name)) << name;
    EXPECT_FALSE(worth_it(1 << 30, 1, codec::rank, name)) << name;
  }
}

}  // namespace
