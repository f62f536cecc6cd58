// Slots that are too small for some pages: with an overflow area, without one, and with one that is full.
#include <algorithm>
#include <set>

#include "page_cases.hpp"

namespace gpu_test {
namespace {

namespace kv = tersor::cuda::kv;
using tersor::codec;
using tersor::errc;
using tersor::cuda::frame_result;
using tersor::cuda::kInPlace;
using tersor::cuda::tail_order;

bytes raw_frame(const env& e, const page_rig& r, const cache& from, std::uint32_t f) {
  const bytes values = r.expected_values(f);
  const auto shape = r.frame_shape();
  auto frame = tersor::encode(e.single, {.type = from.shape().type, .shape = shape, .data = values},
                              {.codec = codec::raw});
  if (!frame) throw std::runtime_error("the CPU makes no raw frame");
  return std::move(*frame);
}

/// Frame f lies in the overflow area: as the raw frame that the CPU makes.
void check_overflowed(const env& e, section& s, const page_rig& r, const cache& from, std::uint32_t f,
                      std::set<std::uint32_t>& taken, std::uint32_t places, const std::string& where) {
  const frame_result result = r.encoded(f);
  if (!s.check(result.code == 0 && result.overflow < places && taken.insert(result.overflow).second,
               "frame " + std::to_string(f) + " has no place of its own in the overflow area", where)) {
    return;
  }
  const bytes expected = raw_frame(e, r, from, f);
  bytes found = r.overflowed(result.overflow);
  s.check(found.size() >= expected.size() && std::equal(expected.begin(), expected.end(), found.begin()),
          "the page in the overflow area is not the CPU's raw frame", where);
  const auto info = tersor::inspect(expected);
  s.check(info && result.digest == info->digest && result.frame_bytes == info->frame_bytes,
          "the result does not describe the raw frame", where);
}

/// Encodes with `places` overflow places and checks every frame; returns the frames that have no home.
std::set<std::uint32_t> check_encoded(const env& e, section& s, page_rig& r, const cache& from,
                                      const std::vector<bytes>& frames, std::uint64_t slot,
                                      std::uint32_t places, tail_order order, const std::string& where) {
  std::set<std::uint32_t> taken, homeless;
  std::uint32_t n_large = 0;
  for (std::uint32_t f = 0; f < r.n_frames(); ++f) {
    const frame_result result = r.encoded(f);
    if (frames[f].size() <= slot) {
      const bytes found = r.stored(f, frames[f].size());
      s.check(result.code == 0 && result.overflow == kInPlace, "a page that fits is not in its slot", where);
      s.check(
          order == tail_order::canonical ? found == frames[f] : cpu_verdict(e.single, found).code == errc::ok,
          "a slot's frame is wrong", where);
      continue;
    }
    ++n_large;
    if (result.code != 0) {
      s.check(result.code == static_cast<int>(errc::destination_too_small),
              "code " + std::to_string(result.code), where);
      homeless.insert(f);
    } else {
      check_overflowed(e, s, r, from, f, taken, places, where);
    }
  }
  s.check(taken.size() == std::min(n_large, places), "places taken: " + std::to_string(taken.size()), where);
  if (places >= n_large && places != 0)
    s.check(r.overflow_used() == n_large, "the count of places is wrong", where);
  if (places != 0) s.check(r.overflow_used() >= taken.size(), "the count of places is too small", where);
  s.check(r.guards_hold() && from.device_agrees(), "written behind slots or overflow area", where);
  return homeless;
}

void check_decoded(section& s, page_rig& r, const cache& from, const std::vector<std::int32_t>& ids,
                   const std::set<std::uint32_t>& homeless, const std::string& where) {
  cache_shape shape = from.shape();
  shape.how = cache_shape::order::separate_hnd;
  cache to(shape, 0);
  const auto called = r.decode(to, ids, where);
  if (!s.check(called.has_value(), "decode_pages_async: " + text_of(called), where)) return;
  std::vector<std::int32_t> unspecified;
  const auto n_pages = static_cast<std::uint32_t>(ids.size());
  for (std::uint32_t f = 0; f < r.n_frames(); ++f) {
    const bool lost = homeless.contains(f);
    s.check((r.decoded(f).code != 0) == lost,
            "decoding frame " + std::to_string(f) + " gave code " + std::to_string(r.decoded(f).code), where);
    if (lost) unspecified.push_back(ids[f % n_pages]);
    to.set_page(f / n_pages, ids[f % n_pages], from.page(f / n_pages, ids[f % n_pages]));
  }
  s.check(to.device_agrees(unspecified), "pages differ after decoding", where);
}

void check_case(const env& e, section& s, const cache_shape& shape, codec c) {
  const cache from(shape, 77);
  prng random(3);
  const auto ids = shuffled_ids(shape.n_blocks, shape.n_blocks - 1, random);
  page_rig r(e, s, from, ids, c, kv::page_frames::slots);
  std::string where = "slots of " + shape.text();
  if (!r.make_books(where)) return;
  std::vector<bytes> frames;
  std::vector<std::uint64_t> sizes;
  for (std::uint32_t f = 0; f < r.n_frames(); ++f) {
    frames.push_back(r.expected_frame(f));
    sizes.push_back(frames.back().size());
  }
  const auto share = [&](std::uint64_t n_bytes) {
    return static_cast<double>(std::ranges::count_if(sizes, [&](std::uint64_t n) { return n <= n_bytes; })) /
           static_cast<double>(sizes.size());
  };
  const std::set<std::uint64_t> different(sizes.begin(), sizes.end());
  if (!s.check(different.size() >= 2, "the data has no pages of several sizes", where)) return;
  const double coverage =
      share(*std::next(different.begin(), static_cast<std::ptrdiff_t>(different.size() - 1) / 2));
  const std::uint64_t slot = kv::suggest_slot_bytes(sizes, coverage);
  s.check(slot % 128 == 0 && share(slot) >= coverage && share(slot - 128) < coverage,
          "suggest_slot_bytes: " + std::to_string(slot), where);
  const auto n_large =
      static_cast<std::uint32_t>(std::ranges::count_if(sizes, [&](std::uint64_t n) { return n > slot; }));
  for (const std::uint32_t places : {n_large + 3, n_large, n_large / 2, 1u, 0u}) {
    for (const tail_order order : {tail_order::canonical, tail_order::free}) {
      where = "slots of " + shape.text() + ", " + std::to_string(places) + " places for " +
              std::to_string(n_large);
      r.set_store(slot, places);
      const auto called = r.encode(order, where);
      if (!s.check(called.has_value(), "encode_pages_async: " + text_of(called), where)) return;
      const auto homeless = check_encoded(e, s, r, from, frames, slot, places, order, where);
      check_decoded(s, r, from, ids, homeless, where);
    }
  }
  s.add_values(shape.page_values() * r.n_frames());
}

}  // namespace

void check_slots(const env& e, section& s) {
  using order = cache_shape::order;
  cache_shape shape{.how = order::kv_blocks_nhd, .type = tersor::dtype::bf16, .n_blocks = 9, .dim = 80};
  if (e.opt.quick) {
    shape.n_layers = 1;
    return check_case(e, s, shape, codec::rank);
  }
  for (const auto type : kTypes) {
    for (const order how : {order::kv_blocks_nhd, order::blocks_kv_hnd}) {
      shape.type = type;
      shape.how = how;
      for (const codec c : kCodecs) {
        // Frames of one size only: 15 codes and an escape say no more than the 4 bits of the exponent.
        if (type == tersor::dtype::f8_e4m3 && c == codec::top16) continue;
        check_case(e, s, shape, c);
      }
    }
  }
}

}  // namespace gpu_test
