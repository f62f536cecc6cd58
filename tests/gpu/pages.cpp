// Pages of a KV cache: gathered and in slots, from one storage order into another, with ids that are out of
// range.
#include <algorithm>
#include <limits>

#include "page_cases.hpp"
#include "sections.hpp"

namespace gpu_test {
namespace {

namespace kv = tersor::cuda::kv;
using order = cache_shape::order;
using tersor::codec;
using tersor::errc;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;

void check_frame(const env& e, section& s, const page_rig& r, std::uint32_t f, tail_order how,
                 const std::string& where) {
  const bytes expected = r.expected_frame(f);
  const frame_result result = r.encoded(f);
  if (!s.check(result.code == 0 && result.frame_bytes == expected.size(),
               "frame " + std::to_string(f) + " has code " + std::to_string(result.code) + ", " +
                   std::to_string(result.frame_bytes) + " bytes",
               where)) {
    return;
  }
  const bytes found = r.stored(f, expected.size());
  s.check(result.overflow == tersor::cuda::kInPlace, "a frame that fits is not in its place", where);
  if (how == tail_order::canonical) {
    s.check(found == expected, "frame " + std::to_string(f) + " is not the CPU's", where);
  } else {
    const verdict v = cpu_verdict(e.single, found);
    s.check(v.code == errc::ok && v.digest == result.digest && v.data == r.expected_values(f),
            "the CPU does not decode frame " + std::to_string(f) + " to its pages", where);
  }
}

/// Encodes chosen pages in both orders and decodes them into other pages of a cache in another order.
void transfer(const env& e, section& s, const cache_shape& from_shape, order to_order, codec c,
              kv::page_frames kind, std::uint32_t n_pages, prng& random) {
  const std::string where = from_shape.text() + (kind == kv::page_frames::slots ? " slots " : " gathered ") +
                            std::string(tersor::to_string(c)) + ", " + std::to_string(n_pages) + " pages";
  const cache from(from_shape, random.next() | 1);
  cache_shape to_shape = from_shape;
  to_shape.how = to_order;
  to_shape.n_blocks += 4;
  to_shape.shift = from_shape.shift == 0 ? 1 : 0;
  cache to(to_shape, 0);
  if (!s.check(from.fault().empty() && to.fault().empty(), "make_pools: " + from.fault() + to.fault(), where))
    return;
  const auto ids = shuffled_ids(from_shape.n_blocks, n_pages, random);
  const auto to_ids = shuffled_ids(to_shape.n_blocks, n_pages, random);
  page_rig r(e, s, from, ids, c, kind);
  if (!r.make_books(where)) return;
  for (const tail_order how : {tail_order::canonical, tail_order::free}) {
    const auto called = r.encode(how, where);
    if (!s.check(called.has_value(), "encode_pages_async: " + text_of(called), where)) return;
    for (std::uint32_t f = 0; f < r.n_frames(); ++f) check_frame(e, s, r, f, how, where);
  }
  const auto called = r.decode(to, to_ids, where);
  if (!s.check(called.has_value(), "decode_pages_async: " + text_of(called), where)) return;
  for (std::uint32_t f = 0; f < r.n_frames(); ++f)
    s.check(r.decoded(f).code == 0,
            "decoding frame " + std::to_string(f) + " gave code " + std::to_string(r.decoded(f).code), where);
  for (std::uint32_t pool = 0; pool < from_shape.n_pools(); ++pool) {
    for (std::size_t p = 0; p < ids.size(); ++p) to.set_page(pool, to_ids[p], from.page(pool, ids[p]));
  }
  s.check(to.device_agrees(), "pages differ after decoding, or other memory was written", where);
  s.check(from.device_agrees() && r.guards_hold(), "encoding wrote where it should not", where);
  s.add_values(from_shape.page_values() * n_pages * from_shape.n_pools());
}

std::vector<cache_shape> shapes(const env& e) {
  std::vector<cache_shape> all;
  const std::vector<std::uint32_t> dims = {64, 128, 80, 6}, blocks = {16, 1, 32};
  for (const auto how :
       {order::kv_blocks_nhd, order::blocks_kv_nhd, order::kv_blocks_hnd, order::blocks_kv_hnd}) {
    for (const std::uint32_t dim : dims) {
      for (const std::uint32_t block : blocks) {
        const auto type = kTypes[all.size() % kTypes.size()];
        all.push_back({.how = how,
                       .type = type,
                       .block_size = block,
                       .dim = dim,
                       .shift = static_cast<std::uint32_t>(all.size() % 5 == 0)});
      }
    }
  }
  for (const auto type : kTypes) {
    for (const std::uint32_t block : blocks)
      all.push_back(
          {.how = order::mla, .type = type, .block_size = block, .heads = 1, .dim = 576, .latent = true});
  }
  if (!e.opt.quick) return all;
  std::vector<cache_shape> few;
  for (std::size_t i = 0; i < all.size(); i += 13) {
    few.push_back(all[i]);
    few.back().n_layers = 1;
    few.back().n_blocks = 5;
    few.back().heads = all[i].latent ? 1 : 2;
  }
  return few;
}

order other_order(const cache_shape& shape, std::size_t i) {
  if (shape.latent) return i % 2 == 0 ? order::mla : order::separate_nhd;
  constexpr order kAll[] = {order::blocks_kv_hnd, order::separate_nhd, order::kv_blocks_hnd,
                            order::kv_blocks_nhd, order::separate_hnd, order::blocks_kv_nhd};
  return kAll[i % std::size(kAll)];
}

/// Ids outside the pool: their frames are refused, and nothing outside the pages that the list names is
/// touched.
void bad_ids(const env& e, section& s, kv::page_frames kind, std::int32_t bad, codec c) {
  const std::string where =
      "page id " + std::to_string(bad) + (kind == kv::page_frames::slots ? " slots" : " gathered");
  const cache_shape shape{.how = order::blocks_kv_nhd, .n_layers = 1, .n_blocks = 6, .heads = 2};
  const cache from(shape, 31);
  prng random(1);
  const std::vector<std::int32_t> good = {4, 1, 3}, wrong = {4, bad, 3};
  page_rig right(e, s, from, good, c, kind);
  if (!right.make_books(where) ||
      !s.check(right.encode(tail_order::canonical, where).has_value(), "encode", where))
    return;
  // The books are made for the good pages; the list with the wrong one is encoded with them.
  const cache to(shape, 0);
  const auto decoding = right.decode(to, wrong, where);
  if (s.check(decoding.has_value(), "decode_pages_async: " + text_of(decoding), where)) {
    for (std::uint32_t f = 0; f < right.n_frames(); ++f) {
      const bool hit = kind == kv::page_frames::gathered || f % 3 == 1;
      s.check((right.decoded(f).code != 0) == hit,
              "decoding frame " + std::to_string(f) + " gave code " + std::to_string(right.decoded(f).code),
              where);
    }
    s.check(to.device_agrees({4, 3}) && from.device_agrees(), "decoding touched other pages", where);
  }
  const auto encoding = right.encode_others(wrong, tail_order::free, where);
  if (!s.check(encoding.has_value(), "encode_pages_async: " + text_of(encoding), where)) return;
  for (std::uint32_t f = 0; f < right.n_frames(); ++f) {
    const bool hit = kind == kv::page_frames::gathered || f % 3 == 1;
    s.check((right.encoded(f).code != 0) == hit,
            "encoding frame " + std::to_string(f) + " gave code " + std::to_string(right.encoded(f).code),
            where);
  }
  s.check(right.guards_hold() && from.device_agrees(), "encoding touched other memory", where);
}

}  // namespace

void run_pages(const env& e, section& s) {
  prng random(21);
  const auto all = shapes(e);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const cache_shape& shape = all[i];
    const std::uint32_t counts[] = {7, 1, shape.n_blocks};
    const std::uint32_t n_pages = std::min(shape.n_blocks, counts[i % 3]);
    for (const auto kind : {kv::page_frames::gathered, kv::page_frames::slots}) {
      const codec c = kCodecs[(i + static_cast<std::size_t>(kind)) % 2];
      transfer(e, s, shape, other_order(shape, i), c, kind, n_pages, random);
      if (!e.opt.quick)
        transfer(e, s, shape, other_order(shape, i + 1),
                 kCodecs[(i + static_cast<std::size_t>(kind) + 1) % 2], kind, 3, random);
    }
  }
  for (const auto kind : {kv::page_frames::gathered, kv::page_frames::slots}) {
    for (const std::int32_t bad :
         {-1, 6, 1000, std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()})
      bad_ids(e, s, kind, bad, kCodecs[static_cast<std::size_t>(bad & 1)]);
  }
  check_slots(e, s);
}

}  // namespace gpu_test
