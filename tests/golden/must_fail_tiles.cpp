#include <algorithm>

#include "must_fail_cases.hpp"

namespace golden {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::errc;

using change = void (*)(record&);

struct record_case {
  const char* name;
  change edit;
};

void add_records(bad_frames& to, const std::string& prefix, const frame_edit& from,
                 std::initializer_list<record_case> cases) {
  for (const record_case& c : cases) {
    to.add("index-" + prefix + c.name, errc::malformed, from, [&](frame_edit& f) {
      record r = f.chunk(0);
      c.edit(r);
      f.put_chunk(0, r);
    });
  }
}

/// A tail one word longer than it is; the frame has room for it in the padding.
void lengthen_tail(frame_edit& f) {
  record r = f.chunk(0);
  ++r.words[0];
  f.set(24, 8, f.get(24, 8) + 1);
  f.put_chunk(0, r);
}

void shorten_tail(frame_edit& f) {
  record r = f.chunk(0);
  --r.words[0];
  const std::uint64_t words = f.get(24, 8) - 1;
  f.set(24, 8, words);
  f.set(f.at("tails") + 4 * words, 4, 0);
  f.put_chunk(0, r);
}

void flip_escape_flag(frame_edit& f) {
  record r = f.chunk(0);
  r.escapes ^= 1;
  f.put_chunk(0, r);
}

}  // namespace

void add_index_cases(bad_frames& to) {
  const frame_edit rank = to.good(codec::rank, dtype::bf16, 1000, pattern::weights);
  const frame_edit two = to.good(codec::rank, dtype::f8_e5m2, 1025, pattern::weights);
  const frame_edit raw = to.good(codec::rank, dtype::bf16, 1000, pattern::uniform);
  add_records(to, "", rank,
              {{"flag-escape-no-tile", [](record& r) { r.escapes |= 0x80; }},
               {"flag-raw-no-tile", [](record& r) { r.raw |= 2; }},
               {"words-no-tile", [](record& r) { r.words[0]--, r.words[1]++; }},
               {"raw-and-escapes", [](record& r) { r.raw = r.escapes = 1; }},
               {"coded-as-long-as-raw", [](record& r) { r.words[0] = 192; }},
               {"coded-tail-longest", [](record& r) { r.words[0] = 255; }},
               {"words-sum-less", [](record& r) { r.words[0]--; }},
               {"first-word-one", [](record& r) { r.first_word = 1; }},
               {"first-word-last", [](record& r) { r.first_word = (std::uint64_t{1} << 48) - 1; }}});
  add_records(to, "raw-tile-", raw,
              {{"words-less", [](record& r) { r.words[0]--; }},
               {"words-more", [](record& r) { r.words[0]++; }},
               {"flag-cleared", [](record& r) { r.raw = 0; }},
               {"and-escapes", [](record& r) { r.escapes = 1; }}});
  add_records(to, "two-", two, {{"sum-more", [](record& r) { r.words[1]++; }}});
  to.add("index-bit", errc::digest_mismatch, rank, [](frame_edit& f) { f.flip(f.at("index") + 16); });
  to.add("index-chunk-digest", errc::digest_mismatch, rank, [](frame_edit& f) {
    f.flip(f.at("index"));
    f.fix_index();
  });
  to.add("padding-after-index", errc::malformed, rank, [](frame_edit& f) { f.flip(f.at("index") + 24); });
  to.add("padding-before-planes", errc::malformed, rank, [](frame_edit& f) { f.flip(255); });
  to.add("padding-after-tails", errc::malformed, rank,
         [](frame_edit& f) { f.flip(f.at("tails") + f.find("tails").size); });
  to.add("padding-last-byte", errc::malformed, rank, [](frame_edit& f) { f.flip(f.data().size() - 1); });
  const frame_edit plain = to.good(codec::raw, dtype::u8, 100, pattern::uniform);
  to.add("padding-raw-index", errc::malformed, plain, [](frame_edit& f) { f.flip(f.at("index") + 8); });
  to.add("padding-raw-payload", errc::malformed, plain, [](frame_edit& f) { f.flip(f.data().size() - 1); });
}

void add_tile_cases(bad_frames& to) {
  const frame_edit rank = to.good(codec::rank, dtype::bf16, 1000, pattern::weights);
  const frame_edit clean = to.good(codec::rank, dtype::bf16, 1000, pattern::clean);
  const frame_edit top16 = to.good(codec::top16, dtype::bf16, 1000, pattern::weights);
  const frame_edit raw = to.good(codec::rank, dtype::bf16, 1000, pattern::uniform);
  const frame_edit half = to.good(codec::rank, dtype::f16, 1000, pattern::weights);
  const frame_edit single = to.good(codec::rank, dtype::f8_e5m2, 1, pattern::constant);
  to.add("tile-escape-flag-cleared", errc::malformed, rank, flip_escape_flag);
  to.add("tile-escape-flag-set", errc::malformed, clean, flip_escape_flag);
  to.add("tile-top16-escape-flag-cleared", errc::malformed, top16, flip_escape_flag);
  to.add("tile-tail-longer", errc::malformed, clean, lengthen_tail);
  to.add("tile-tail-from-nothing", errc::malformed, single, [](frame_edit& f) {
    f.resize(f.data().size() + 128);
    lengthen_tail(f);
  });
  to.add("tile-levels-overrun", errc::malformed, clean, shorten_tail);
  to.add("tile-escapes-overrun", errc::malformed, rank, shorten_tail);
  to.add("tile-top16-escapes-overrun", errc::malformed, top16, shorten_tail);
  to.add("tile-tail-padding", errc::malformed, clean,
         [](frame_edit& f) { f.flip(f.at("tails") + f.find("tails").size - 1, 0x80); });
  to.add("tile-top16-tail-padding", errc::malformed,
         to.good(codec::top16, dtype::bf16, 990, pattern::weights),
         [](frame_edit& f) { f.flip(f.at("tails") + f.find("tails").size - 1, 0x80); });
  to.add("tile-more-continue", errc::malformed, single, [](frame_edit& f) { f.set(f.at("codes"), 1, 3); });
  // The escapes of a coded tile that no value needs: the missing value 1 escapes to the symbol that code 0
  // has.
  to.add("last-tile-escape", errc::malformed, to.good(codec::top16, dtype::bf16, 1, pattern::constant),
         [](frame_edit& f) {
           f.resize(f.data().size() + 128);
           f.set(f.at("codes"), 1, 0xf0);
           f.set(f.at("tails"), 1, f.get(48, 1));
           record r = f.chunk(0);
           r.escapes = 1;
           r.words[0] = 1;
           f.set(24, 8, 1);
           f.put_chunk(0, r);
         });
  to.add("tile-escape-no-symbol", errc::malformed, to.good(codec::top16, dtype::f16, 1000, pattern::weights),
         [](frame_edit& f) { f.flip(f.at("tails"), 0x20); });
  // Value 1023 is the last in value order and in lane order.
  to.add("last-tile-rest", errc::malformed, rank, [](frame_edit& f) { f.flip(f.at("rest bytes") + 1023); });
  to.add("last-tile-first-padding", errc::malformed, rank,
         [](frame_edit& f) { f.flip(f.at("rest bytes") + 1000); });
  to.add("last-tile-code", errc::malformed, rank, [](frame_edit& f) { f.flip(f.at("codes") + 255, 0x40); });
  to.add("last-tile-raw-code", errc::malformed, raw,
         [](frame_edit& f) { f.flip(f.at("codes") + 255, 0x40); });
  to.add("last-tile-raw-tail-4", errc::malformed, raw,
         [](frame_edit& f) { f.flip(f.at("tails") + 511, 0x80); });
  to.add("last-tile-raw-tail-2", errc::malformed, raw,
         [](frame_edit& f) { f.flip(f.at("tails") + 767, 0x80); });
  to.add("last-tile-rest-field-2", errc::malformed, half,
         [](frame_edit& f) { f.flip(f.at("rest fields") + 255, 0x40); });
  to.add("last-tile-rest-field-1", errc::malformed, half,
         [](frame_edit& f) { f.flip(f.at("rest fields") + 383, 0x80); });
}

void add_chunk_cases(bad_frames& to) {
  const frame_edit two = to.good(codec::rank, dtype::f8_e5m2, 8193, pattern::constant);
  const frame_edit rank = to.good(codec::rank, dtype::bf16, 1000, pattern::weights);
  const frame_edit other = to.good(codec::rank, dtype::bf16, 1000, pattern::clean);
  const frame_edit plain = to.good(codec::raw, dtype::u8, 16385, pattern::uniform);
  to.add("chunk-rest-bit", errc::digest_mismatch, rank,
         [](frame_edit& f) { f.flip(f.at("rest bytes") + 500); });
  to.add("chunk-raw-bit", errc::digest_mismatch, plain,
         [](frame_edit& f) { f.flip(f.at("payload") + 16384); });
  to.add("chunk-escape-bit", errc::digest_mismatch,
         to.good(codec::top16, dtype::bf16, 1000, pattern::weights),
         [](frame_edit& f) { f.flip(f.at("tails")); });
  to.add("chunk-spliced", errc::digest_mismatch, rank, [&](frame_edit& f) {
    std::copy_n(other.data().begin() + static_cast<std::ptrdiff_t>(f.at("rest bytes")), 1000,
                f.data().begin() + static_cast<std::ptrdiff_t>(f.at("rest bytes")));
  });
  to.add("chunk-tail-spliced-record", errc::digest_mismatch, rank, [&](frame_edit& f) {
    record r = f.chunk(0);
    r.digest = other.chunk(0).digest;
    f.put_chunk(0, r);
  });
  // The same values at tiles 1 and 9 would have the same planes: only the position in the digest tells them
  // apart.
  to.add("chunk-digest-moved", errc::digest_mismatch,
         to.good(codec::rank, dtype::f8_e5m2, 16384, pattern::constant), [](frame_edit& f) {
           record first = f.chunk(0), second = f.chunk(1);
           std::swap(first.digest, second.digest);
           f.put_chunk(0, first);
           f.put_chunk(1, second);
         });
  to.add("chunk-swapped", errc::digest_mismatch, to.good(codec::rank, dtype::f8_e5m2, 16384, pattern::clean),
         [](frame_edit& f) {
           for (const section& s : f.sections()) {
             const auto begin = f.data().begin() + static_cast<std::ptrdiff_t>(s.offset);
             const auto chunk = static_cast<std::ptrdiff_t>(8 * s.tile_bytes);
             std::swap_ranges(begin, begin + chunk, begin + chunk);
           }
           const record first = f.chunk(0);
           f.put_chunk(0, f.chunk(1));
           f.put_chunk(1, first);
         });
  to.add("chunk-last-value", errc::digest_mismatch, two,
         [](frame_edit& f) { f.flip(f.at("rest fields") + 8 * 256); });
}

}  // namespace golden
