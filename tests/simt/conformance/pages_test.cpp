// Pages of pools through the kernels: the frames are the CPU's, and decode into any layout.
#include <algorithm>

#include <gtest/gtest.h>

#include "twin_calls.hpp"
#include "twin_pages.hpp"

namespace {

using namespace twin;
using kv::page_frames;
using kv::pool_order;
using tersor::codec;
using tersor::dtype;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

/// The ids whose values frame `f` holds.
std::span<const std::int32_t> ids_of(std::span<const std::int32_t> ids, page_frames kind, std::size_t f) {
  return kind == page_frames::gathered ? ids : ids.subspan(f % ids.size(), 1);
}
std::size_t pool_of(std::span<const std::int32_t> ids, page_frames kind, std::size_t f) {
  return kind == page_frames::gathered ? f : f / ids.size();
}

void check_frames(device& d, const pool_choice& choice, const pool_memory& from,
                  std::span<const std::int32_t> ids, const store_choice& how, const page_frames_memory& m) {
  for (std::size_t f = 0; f < m.n_frames; ++f) {
    SCOPED_TRACE("frame " + std::to_string(f));
    const auto result = d.download_value(m.results + f);
    ASSERT_EQ(result.code, 0);
    const bytes frame = d.download(m.frames + f * m.store.frame_stride, result.frame_bytes);
    expect_good(result, frame);
    const bytes values = gather(from, pool_of(ids, how.kind, f), ids_of(ids, how.kind, f));
    if (how.order == tail_order::canonical) {
      const bytes all = gather(from, pool_of(ids, how.kind, f), ids);
      const auto shape = shape_of(choice, how.kind, ids.size());
      ASSERT_EQ(difference(frame, cpu_frame(how.c, choice.type, shape, values, book_of(choice.type, all))),
                "");
    } else {
      bytes back(values.size());
      ASSERT_TRUE(tersor::decode_into(cpu(), frame, back).has_value());
      ASSERT_EQ(difference(back, values), "");
    }
  }
}

/// Encodes pages of `from` and decodes them to other pages of pools laid out like `to`.
void check_pages(const pool_choice& from, const pool_choice& to, std::size_t n_pages, const store_choice& how,
                 kind k, std::uint64_t seed) {
  device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
  const pool_memory source = make_filled(d, from, k, seed);
  const auto ids = shuffled_ids(from, n_pages, seed);
  const page_frames_memory m = encode_pages(d, source, ids, how);
  if (testing::Test::HasFailure()) return;
  check_frames(d, from, source, ids, how, m);
  if (testing::Test::HasFailure()) return;
  const pool_memory target = make_empty(d, to);
  const auto places = shuffled_ids(to, n_pages, seed + 1);
  const auto results = decode_pages(d, how.c, target, places, m, nullptr);
  ASSERT_EQ(results.size(), m.n_frames);
  for (std::size_t f = 0; f < m.n_frames; ++f) {
    expect_good(results[f],
                d.download(m.frames + f * m.store.frame_stride, d.download_value(m.results + f).frame_bytes));
  }
  for (std::size_t p = 0; p < source.pools.pools.size(); ++p) {
    ASSERT_EQ(difference(gather(target, p, places), gather(source, p, ids)), "");
  }
  expect_only_pages(d, target, places);
}

constexpr std::array kOrders = {pool_order::kv_blocks_nhd, pool_order::blocks_kv_nhd,
                                pool_order::kv_blocks_hnd, pool_order::blocks_kv_hnd};

struct page_size {
  std::uint32_t block_size, kv_heads, head_dim;
};

TEST(pages, every_order_and_size) {
  // Whole tiles; eights; eights that no tile ends with; values apart; more than one chunk.
  constexpr std::array<page_size, 7> kSizes = {
      {{4, 2, 128}, {16, 4, 64}, {3, 2, 80}, {5, 3, 6}, {1, 1, 1}, {8, 1, 128}, {17, 4, 128}}};
  std::uint64_t seed = 0;
  for (const pool_order order : kOrders) {
    for (const page_size& size : kSizes) {
      for (const page_frames frames : {page_frames::gathered, page_frames::slots}) {
        if (left_out(++seed, 5)) continue;
        pool_choice from{.type = kTypes[seed / 2 % 4],
                         .order = order,
                         .n_layers = 1 + static_cast<std::uint32_t>(seed % 2)};
        from.n_blocks = 6;
        from.block_size = size.block_size;
        from.kv_heads = size.kv_heads;
        from.head_dim = size.head_dim;
        pool_choice to = from;
        to.order = kOrders[(static_cast<std::size_t>(order) + seed / 3) % kOrders.size()];
        to.n_blocks = 5;
        store_choice how{.c = kCodecs[seed / 3 % 2], .kind = frames};
        how.order = seed % 5 < 3 ? tail_order::canonical : tail_order::free;
        SCOPED_TRACE(from.text() + ", seed " + std::to_string(seed));
        check_pages(from, to, 1 + seed % 4, how, kKinds[seed % kKinds.size()], seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(pages, of_a_latent_cache) {
  std::uint64_t seed = 70;
  for (const dtype type : kTypes) {
    for (const std::uint32_t block_size : {2u, 16u}) {
      for (const page_frames frames : {page_frames::gathered, page_frames::slots}) {
        if (left_out(++seed, 3)) continue;
        pool_choice from{.type = type, .order = pool_order::mla, .n_layers = 2, .n_blocks = 5};
        from.block_size = block_size;
        from.kv_heads = 1;
        from.head_dim = 576;
        pool_choice to = from;
        to.n_blocks = 9;
        SCOPED_TRACE(from.text());
        check_pages(from, to, 3, {.c = kCodecs[seed % 2], .kind = frames}, kind::heavy_tails, seed);
        if (HasFailure()) return;
      }
    }
  }
}

/// Addresses that no row of eight values can be loaded from.
TEST(pages, of_tensors_at_any_address) {
  std::uint64_t seed = 90;
  for (const std::size_t offset : {std::size_t{2}, std::size_t{8}, std::size_t{16}}) {
    for (const dtype type : {dtype::bf16, dtype::f8_e4m3}) {
      for (const page_frames frames : {page_frames::gathered, page_frames::slots}) {
        pool_choice from{.type = type, .offset = offset};
        pool_choice to = from;
        to.offset = 0;
        SCOPED_TRACE(offset);
        check_pages(from, to, 3, {.kind = frames}, kind::normal, ++seed);
        check_pages(to, from, 3, {.kind = frames}, kind::normal, ++seed);
        if (HasFailure()) return;
      }
    }
  }
}

/// More pools than one launch takes.
TEST(pages, of_very_many_pools) {
  pool_choice from{
      .type = dtype::f8_e5m2, .n_layers = 130, .n_blocks = 3, .block_size = 2, .kv_heads = 1, .head_dim = 8};
  for (const page_frames frames : {page_frames::gathered, page_frames::slots}) {
    if (left_out(static_cast<std::uint64_t>(frames), 2)) continue;
    check_pages(from, from, 2, {.kind = frames}, kind::heavy_tails, 5);
    if (HasFailure()) return;
  }
}

/// Ids outside the pool: the frame says so, and nothing is read or written for them.
TEST(pages, of_bad_ids) {
  std::uint64_t seed = 0;
  for (const std::int32_t bad :
       {-1, 6, 7, std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()}) {
    for (const page_size size : {page_size{4, 2, 128}, page_size{3, 2, 80}, page_size{5, 3, 6}}) {
      for (const page_frames frames : {page_frames::gathered, page_frames::slots}) {
        SCOPED_TRACE(std::to_string(bad) + " dim " + std::to_string(size.head_dim));
        if (left_out(++seed, 4)) continue;
        device d(seed, 2);
        pool_choice choice{.n_blocks = 6,
                           .block_size = size.block_size,
                           .kv_heads = size.kv_heads,
                           .head_dim = size.head_dim};
        const pool_memory source = make_filled(d, choice, kind::normal, seed);
        const std::vector<std::int32_t> good = {5, 0, 3};
        std::vector<std::int32_t> ids = good;
        ids[seed % 3] = bad;
        for (const tail_order order : {tail_order::canonical, tail_order::free}) {
          const page_frames_memory m = encode_pages(d, source, ids, {.kind = frames, .order = order});
          for (std::size_t f = 0; f < m.n_frames; ++f) {
            const bool bad_frame = frames == page_frames::gathered || ids[f % 3] == bad;
            EXPECT_EQ(d.download_value(m.results + f).code, bad_frame ? 1 : 0);
          }
        }
        const page_frames_memory m = encode_pages(d, source, good, {.kind = frames});
        const pool_memory target = make_empty(d, choice);
        const auto results = decode_pages(d, codec::rank, target, ids, m, nullptr);
        for (std::size_t f = 0; f < results.size(); ++f) {
          const bool bad_frame = frames == page_frames::gathered || ids[f % 3] == bad;
          EXPECT_EQ(results[f].code, bad_frame ? 1 : 0);
        }
        std::erase(ids, bad);
        expect_only_pages(d, target, ids);
        if (HasFailure()) return;
      }
    }
  }
}

}  // namespace
