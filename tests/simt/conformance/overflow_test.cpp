// Pages that do not fit their slots: flagged, or kept raw in the overflow area.
#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "frame_damage.hpp"
#include "twin_calls.hpp"
#include "twin_pages.hpp"

namespace {

using namespace twin;
using kv::page_frames;
using kv::pool_order;
using tersor::codec;
using tersor::dtype;
using tersor::cuda::frame_result;
using tersor::cuda::kInPlace;
using tersor::cuda::tail_order;

constexpr std::int32_t kTooSmall = 2;

struct overflow_case {
  pool_choice pools;
  store_choice how;
  std::vector<std::int32_t> ids;
};

bytes raw_frame(const overflow_case& one, byte_view values) {
  bytes frame(
      tersor::encode_bound(codec::raw, one.pools.type, values.size() / tersor::value_bytes(one.pools.type)));
  const auto shape = shape_of(one.pools, page_frames::slots, 1);
  frame.resize(
      tersor::encode_into(cpu(), {one.pools.type, shape, values}, frame, {.codec = codec::raw}).value());
  return frame;
}

/// Pools in which two of the five pages are random and the others one value over and over.
pool_memory make_uneven(device& d, const overflow_case& one) {
  pool_memory m = make_filled(d, one.pools, kind::constant, 3);
  const kv::page_layout& l = m.pools.layout;
  simt::random r(4);
  for (std::size_t pool = 0; pool < m.pools.pools.size(); ++pool) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{3}}) {
      const auto page = static_cast<std::uint64_t>(one.ids[at]);
      for (std::uint32_t token = 0; token < l.block_size; ++token) {
        for (std::uint32_t head = 0; head < l.kv_heads; ++head) {
          std::byte* row = value_at(m, pool, page, token, head, 0);
          for (std::uint32_t i = 0; i < l.head_dim * tersor::value_bytes(l.type); ++i)
            row[i] = static_cast<std::byte>(r.next());
        }
      }
    }
  }
  return m;
}

/// A slot size that some pages of the pools fit and others do not.
std::uint64_t middle_size(const overflow_case& one, const pool_memory& source) {
  std::vector<std::uint64_t> sizes;
  for (std::size_t pool = 0; pool < source.pools.pools.size(); ++pool) {
    const auto book = book_of(one.pools.type, gather(source, pool, one.ids));
    for (const std::int32_t id : one.ids) {
      const bytes values = gather(source, pool, {&id, 1});
      sizes.push_back(
          cpu_frame(one.how.c, one.pools.type, shape_of(one.pools, page_frames::slots, 1), values, book)
              .size());
    }
  }
  const std::uint64_t size = kv::suggest_slot_bytes(sizes, 0.5);
  EXPECT_LT(size, *std::ranges::max_element(sizes)) << "all pages have one size: this case tests nothing";
  return size;
}

/// Checks encoding's results; how many pages were kept in the area and how many nowhere.
struct kept {
  std::size_t in_slots = 0, in_area = 0, nowhere = 0;
};
kept check_encoded(device& d, const overflow_case& one, const pool_memory& source,
                   const page_frames_memory& m) {
  kept count;
  std::set<std::uint32_t> places;
  for (std::size_t f = 0; f < m.n_frames; ++f) {
    const frame_result result = d.download_value(m.results + f);
    const bytes values = gather(source, f / one.ids.size(), {&one.ids[f % one.ids.size()], 1});
    if (result.code == kTooSmall) {
      ++count.nowhere;
      EXPECT_EQ(result.overflow, kInPlace);
      EXPECT_GT(result.frame_bytes, m.store.frame_stride);
    } else if (result.overflow == kInPlace) {
      ++count.in_slots;
      expect_good(result, d.download(m.frames + f * m.store.frame_stride, result.frame_bytes));
    } else {
      ++count.in_area;
      EXPECT_EQ(result.code, 0);
      EXPECT_LT(result.overflow, m.store.overflow_places);
      EXPECT_TRUE(places.insert(result.overflow).second);
      const bytes want = raw_frame(one, values);
      EXPECT_EQ(want.size(), kv::raw_frame_bytes(source.pools.layout));
      EXPECT_EQ(result.frame_bytes, want.size());
      EXPECT_EQ(result.digest, tersor::inspect(want)->digest);
      EXPECT_EQ(difference(d.download(m.overflow + result.overflow * want.size(), want.size()), want), "");
    }
  }
  return count;
}

void check_decoded(device& d, const overflow_case& one, const pool_memory& source,
                   const page_frames_memory& m) {
  const pool_memory target = make_empty(d, one.pools);
  const auto results = decode_pages(d, one.how.c, target, one.ids, m, m.results);
  ASSERT_EQ(results.size(), m.n_frames);
  for (std::size_t f = 0; f < m.n_frames; ++f) {
    const frame_result before = d.download_value(m.results + f);
    EXPECT_EQ(results[f].code, before.code);
    EXPECT_EQ(results[f].chunk, tersor::cuda::kNoChunk);
    if (before.code != 0) continue;
    EXPECT_EQ(results[f].frame_bytes, before.frame_bytes);
    EXPECT_EQ(results[f].digest, before.digest);
    const std::int32_t id = one.ids[f % one.ids.size()];
    const std::size_t pool = f / one.ids.size();
    EXPECT_EQ(difference(gather(target, pool, {&id, 1}), gather(source, pool, {&id, 1})), "");
  }
}

std::vector<overflow_case> all_cases() {
  std::vector<overflow_case> all;
  std::uint32_t i = 0;
  for (const dtype type : kTypes) {
    for (const codec c : kCodecs) {
      overflow_case one;
      one.pools = {.type = type, .order = static_cast<pool_order>(i % 4), .n_layers = 2, .n_blocks = 8};
      constexpr std::array<std::array<std::uint32_t, 3>, 4> kSizes = {
          {{4, 2, 128}, {3, 3, 7}, {9, 2, 80}, {17, 8, 64}}};
      one.pools.block_size = kSizes[i % 4][0];
      one.pools.kv_heads = kSizes[i % 4][1];
      one.pools.head_dim = kSizes[i % 4][2];
      one.how = {
          .c = c, .kind = page_frames::slots, .order = i % 3 == 0 ? tail_order::free : tail_order::canonical};
      one.ids = shuffled_ids(one.pools, 5, ++i);
      all.push_back(one);
    }
  }
  return all;
}

/// Data whose pages differ in size. F8_E4M3 never has a tail in top16, so no page of it overflows.
bool can_overflow(const overflow_case& one) {
  return one.how.c == codec::rank || one.pools.type != dtype::f8_e4m3;
}

TEST(overflow, absent_full_and_large) {
  std::uint64_t seed = 300;
  for (overflow_case& one : all_cases()) {
    if (!can_overflow(one)) continue;
    SCOPED_TRACE(one.pools.text() + " " + std::string(tersor::to_string(one.how.c)));
    for (const int places : {-1, 0, 1, 2, 10}) {
      if (left_out(++seed, 4)) continue;
      device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
      const pool_memory source = make_uneven(d, one);
      one.how.stride = middle_size(one, source);
      one.how.overflow = places >= 0;
      one.how.overflow_places = places < 0 ? 0 : static_cast<std::uint32_t>(places);
      const page_frames_memory m = encode_pages(d, source, one.ids, one.how);
      if (HasFailure()) return;
      const kept count = check_encoded(d, one, source, m);
      EXPECT_EQ(count.in_slots + count.in_area + count.nowhere, 4 * one.ids.size());
      EXPECT_EQ(count.nowhere == 0, places == 10);
      EXPECT_GT(count.in_slots, 0u);
      EXPECT_EQ(count.in_area, places == 10 ? 4 * one.ids.size() - count.in_slots
                                            : static_cast<std::size_t>(std::max(places, 0)));
      check_decoded(d, one, source, m);
      if (HasFailure()) return;
    }
  }
}

/// A result of encoding that names a place the area does not have.
TEST(overflow, place_that_is_not_there) {
  overflow_case one = all_cases()[0];
  device d(9);
  const pool_memory source = make_uneven(d, one);
  one.how.stride = middle_size(one, source);
  one.how.overflow = true;
  one.how.overflow_places = 20;
  const page_frames_memory m = encode_pages(d, source, one.ids, one.how);
  std::vector<frame_result> where;
  for (std::size_t f = 0; f < m.n_frames; ++f) {
    where.push_back(d.download_value(m.results + f));
    if (f % 3 == 0) where.back().overflow = f % 2 == 0 ? 20 : 0xfffffffe;
    if (f % 3 == 1) where.back().code = 18;
  }
  const auto* where_dev =
      reinterpret_cast<const frame_result*>(d.upload(std::as_bytes(std::span(where)), "where"));
  const auto results = decode_pages(d, one.how.c, make_empty(d, one.pools), one.ids, m, where_dev);
  for (std::size_t f = 0; f < results.size(); ++f)
    EXPECT_EQ(results[f].code, f % 3 == 0 ? 1 : f % 3 == 1 ? 18 : 0);
}

/// Damage to raw frames in the area.
TEST(overflow, damaged_raw_frames) {
  simt::random r(21);
  for (overflow_case& one : all_cases()) {
    if (!can_overflow(one)) continue;
    SCOPED_TRACE(one.pools.text());
    device d(r.next());
    const pool_memory source = make_uneven(d, one);
    one.how.stride = middle_size(one, source);
    one.how.overflow = true;
    one.how.overflow_places = 20;
    page_frames_memory m = encode_pages(d, source, one.ids, one.how);
    if (HasFailure()) return;
    const std::uint64_t size = kv::raw_frame_bytes(source.pools.layout);
    const std::uint64_t n_values = source.pools.layout.page_values();
    for (int round = 0; round < (kSlow ? 2 : 25); ++round) {
      bytes area(20 * size, std::byte{0x5a});
      std::vector<damage> damages(20);
      std::vector<frame_result> where;
      for (std::size_t f = 0; f < m.n_frames; ++f) {
        where.push_back(d.download_value(m.results + f));
        const std::uint32_t place = where.back().overflow;
        if (place == kInPlace) continue;
        damages[place] = damage_raw_frame(d.download(m.overflow + place * size, size), r);
        std::ranges::copy(damages[place].frame, area.begin() + static_cast<std::ptrdiff_t>(place * size));
      }
      page_frames_memory damaged = m;
      damaged.store.overflow_dev = d.upload(area, "overflow area");
      const auto results = decode_pages(d, one.how.c, make_empty(d, one.pools), one.ids, damaged, m.results);
      for (std::size_t f = 0; f < results.size(); ++f) {
        const std::uint32_t place = where[f].overflow;
        if (place == kInPlace) continue;
        const verdict want = cpu_verdict(codec::raw, one.pools.type, n_values, damages[place].frame);
        ASSERT_EQ(results[f].code, static_cast<std::int32_t>(want.code)) << damages[place].what;
        ASSERT_EQ(results[f].chunk, want.chunk) << damages[place].what;
      }
    }
  }
}

/// Damage to coded frames in slots.
TEST(overflow, damaged_slots) {
  simt::random r(22);
  for (overflow_case& one : all_cases()) {
    SCOPED_TRACE(one.pools.text());
    device d(r.next(), 2);
    const pool_memory source = make_uneven(d, one);
    const page_frames_memory m = encode_pages(d, source, one.ids, one.how);
    if (HasFailure()) return;
    const std::uint64_t stride = m.store.frame_stride;
    for (int round = 0; round < (kSlow ? 1 : 10); ++round) {
      bytes slots(m.n_frames * stride, std::byte{0x5a});
      std::vector<damage> damages;
      for (std::size_t f = 0; f < m.n_frames; ++f) {
        damages.push_back(
            damage_frame(d.download(m.frames + f * stride, d.download_value(m.results + f).frame_bytes), r));
        std::ranges::copy(damages[f].frame, slots.begin() + static_cast<std::ptrdiff_t>(f * stride));
      }
      page_frames_memory damaged = m;
      damaged.frames = slots.data();
      const auto results = decode_pages(d, one.how.c, make_empty(d, one.pools), one.ids, damaged, nullptr);
      for (std::size_t f = 0; f < results.size(); ++f) {
        // The kernel sees the whole slot.
        const verdict want = cpu_verdict(one.how.c, one.pools.type, source.pools.layout.page_values(),
                                         byte_view(slots).subspan(f * stride, stride));
        ASSERT_EQ(results[f].code, static_cast<std::int32_t>(want.code)) << damages[f].what;
        if (want.judged_chunks) {
          ASSERT_EQ(results[f].chunk, want.chunk) << damages[f].what;
        }
      }
    }
  }
}

}  // namespace
