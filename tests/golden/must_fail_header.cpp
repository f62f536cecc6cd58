#include "must_fail_cases.hpp"

namespace golden {
namespace {

using tersor::codec;
using tersor::dtype;
using tersor::errc;

constexpr std::uint64_t kVersion = 8, kCodec = 10, kType = 11, kDims = 12, kFlags = 13, kWidths = 14,
                        kValues = 16, kTailWords = 24, kIndexDigest = 32, kHeaderDigest = 40, kCodebook = 48,
                        kShape = 64;

/// Header fields with one wrong value and a right digest.
struct field_case {
  const char* name;
  errc code;
  std::uint64_t at;
  unsigned size;
  std::uint64_t value;
};

void add_fields(bad_frames& to, const std::string& prefix, const frame_edit& from,
                std::initializer_list<field_case> cases) {
  for (const field_case& c : cases) {
    to.add("header-" + prefix + c.name, c.code, from, [&](frame_edit& f) {
      f.set(c.at, c.size, c.value);
      f.fix_header();
    });
  }
}

}  // namespace

void add_header_cases(bad_frames& to) {
  const frame_edit rank = to.good(codec::rank, dtype::bf16, 1000, pattern::weights);
  const frame_edit raw = to.good(codec::raw, dtype::u8, 100, pattern::uniform);
  const frame_edit small = to.good(codec::rank, dtype::f8_e5m2, 1, pattern::weights);
  add_fields(to, "", rank,
             {{"magic-first-byte", errc::bad_magic, 0, 1, 0x88},
              {"magic-last-byte", errc::bad_magic, 7, 1, 0x0d},
              {"version-next", errc::unsupported_version, kVersion, 2, 2},
              {"version-zero", errc::unsupported_version, kVersion, 2, 0},
              {"version-last", errc::unsupported_version, kVersion, 2, 0xffff},
              {"codec-unknown", errc::unsupported, kCodec, 1, 3},
              {"codec-of-other-widths", errc::unsupported, kCodec, 1, 1},
              {"dtype-unknown", errc::unsupported, kType, 1, 16},
              {"dtype-without-exponent", errc::malformed, kType, 1, 7},
              {"dims-nine", errc::malformed, kDims, 1, 9},
              {"dims-two-with-zero", errc::malformed, kDims, 1, 2},
              {"dims-zero", errc::malformed, kDims, 1, 0},
              {"flags", errc::malformed, kFlags, 1, 1},
              {"widths", errc::unsupported, kWidths, 2, 0x0322},
              {"values-more", errc::malformed, kValues, 8, 1001},
              {"values-zero", errc::malformed, kValues, 8, 0},
              {"tail-words-fewer", errc::malformed, kTailWords, 8, rank.get(kTailWords, 8) - 1},
              {"tail-words-more", errc::malformed, kTailWords, 8, rank.get(kTailWords, 8) + 1},
              {"tail-words-wrap", errc::size_overflow, kTailWords, 8, std::uint64_t{1} << 62},
              {"codebook-twice", errc::malformed, kCodebook + 15, 1, rank.get(kCodebook, 1)},
              {"shape-unused", errc::malformed, kShape + 56, 8, 1},
              {"shape-other", errc::malformed, kShape, 8, 999}});
  add_fields(to, "raw-", raw,
             {{"widths", errc::malformed, kWidths, 2, 4},
              {"tail-words", errc::malformed, kTailWords, 8, 1},
              {"codebook", errc::malformed, kCodebook + 3, 1, 1}});
  add_fields(to, "f8-", small, {{"codebook-wide", errc::malformed, kCodebook + 15, 1, 32}});
  add_fields(to, "top16-", to.good(codec::top16, dtype::bf16, 1, pattern::weights),
             {{"codebook-sixteenth", errc::malformed, kCodebook + 15, 1, 9}});
  to.add("header-index-digest", errc::digest_mismatch, rank, [](frame_edit& f) {
    f.flip(kIndexDigest + 3);
    f.fix_header();
  });
  to.add("header-digest", errc::digest_mismatch, rank, [](frame_edit& f) { f.flip(kHeaderDigest); });
  to.add("header-digest-before-version", errc::digest_mismatch, rank,
         [](frame_edit& f) { f.set(kVersion, 2, 2); });
  to.add("header-sizes-wrap", errc::size_overflow, small, [](frame_edit& f) {
    f.set(kDims, 1, 2);
    f.set(kValues, 8, 0);
    f.set(kShape, 8, std::uint64_t{1} << 33);
    f.set(kShape + 8, 8, std::uint64_t{1} << 33);
    f.fix_header();
  });
  to.add("header-bytes-wrap", errc::size_overflow, raw, [](frame_edit& f) {
    f.set(kType, 1, 15);
    f.set(kValues, 8, std::uint64_t{1} << 61);
    f.set(kShape, 8, std::uint64_t{1} << 61);
    f.fix_header();
  });
  to.add("header-section-wrap", errc::size_overflow, raw, [](frame_edit& f) {
    const std::uint64_t values = (std::uint64_t{1} << 60) + 1;
    f.set(kValues, 8, values);
    f.set(kShape, 8, values);
    f.fix_header();
  });
  to.add("header-zero-after-wrap", errc::size_overflow, small, [](frame_edit& f) {
    f.set(kDims, 1, 3);
    f.set(kValues, 8, 0);
    f.set(kShape, 8, std::uint64_t{1} << 33);
    f.set(kShape + 8, 8, std::uint64_t{1} << 33);
    f.fix_header();
  });
  to.add("header-bomb", errc::truncated, small, [](frame_edit& f) {
    f.set(kValues, 8, std::uint64_t{1} << 50);
    f.set(kShape, 8, std::uint64_t{1} << 50);
    f.fix_header();
  });
}

void add_length_cases(bad_frames& to) {
  const frame_edit rank = to.good(codec::rank, dtype::f8_e5m2, 1000, pattern::weights);
  const frame_edit raw = to.good(codec::raw, dtype::i64, 9, pattern::uniform);
  const std::uint64_t size = rank.data().size();
  const auto cut = [&](const char* name, const frame_edit& from, std::uint64_t to_size) {
    to.add(std::string("cut-") + name, errc::truncated, from, [&](frame_edit& f) { f.resize(to_size); });
  };
  cut("empty", rank, 0);
  cut("in-header", rank, 127);
  cut("after-header", rank, 128);
  cut("last-block", rank, size - 128);
  cut("last-byte", rank, size - 1);
  cut("raw-last-byte", raw, raw.data().size() - 1);
  to.add("trailing-byte", errc::malformed, rank, [&](frame_edit& f) { f.resize(size + 1); });
  to.add("trailing-block", errc::malformed, rank, [&](frame_edit& f) { f.resize(size + 128); });
  to.add("raw-trailing-block", errc::malformed, raw, [](frame_edit& f) { f.resize(f.data().size() + 128); });
}

}  // namespace golden
