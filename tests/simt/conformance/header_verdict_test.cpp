// The verdict on a header that GPUs give, against the one that the CPU gives.
#include "codec/header_verdict.hpp"

#include <map>

#include <gtest/gtest.h>

#include "codec/frame_codec.hpp"
#include "core/bytes.hpp"
#include "simt/random.hpp"
#include "twin_data.hpp"

namespace {

using namespace twin;
using tersor::codec;
using tersor::dtype;
using tersor::codec_detail::header_verdict;

constexpr std::size_t kHeader = 128;

std::span<const std::uint8_t> octets(byte_view data) {
  return {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()};
}

std::uint64_t digest_of(byte_view frame) {
  return tersor::codec_detail::header_digest_of(octets(frame).first<kHeader>());
}

void put(bytes& frame, std::size_t at, std::uint64_t value, std::size_t n_bytes) {
  for (std::size_t i = 0; i < n_bytes; ++i) frame[at + i] = static_cast<std::byte>(value >> (8 * i));
}

std::vector<bytes> good_frames() {
  std::vector<bytes> all;
  for (std::uint32_t type = 0; type <= 15; ++type) {
    for (const codec c : {codec::raw, codec::rank, codec::top16}) {
      const auto t = static_cast<dtype>(type);
      if (c != codec::raw && !tersor::is_codable(t)) continue;
      const std::array<std::uint64_t, 3> shape = {3, 1, 700};
      const bytes data(2100 * tersor::value_bytes(t), std::byte{0x3c});
      all.push_back(tersor::encode(cpu(), {t, shape, data}, {.codec = c, .raw_fallback = false}).value());
    }
  }
  return all;
}

/// A number that is likely to matter.
std::uint64_t telling(simt::random& r) {
  constexpr std::array<std::uint64_t, 20> kNumbers = {0,
                                                      1,
                                                      2,
                                                      3,
                                                      7,
                                                      8,
                                                      9,
                                                      16,
                                                      255,
                                                      256,
                                                      700,
                                                      2100,
                                                      8191,
                                                      8193,
                                                      std::uint64_t{1} << 32,
                                                      std::uint64_t{1} << 59,
                                                      (std::uint64_t{1} << 60) + 1,
                                                      std::uint64_t{1} << 62,
                                                      std::uint64_t{1} << 63,
                                                      ~std::uint64_t{0}};
  const std::uint64_t base = kNumbers[r.below(kNumbers.size())];
  return r.one_in(4) ? base + r.below(3) - 1 : r.one_in(6) ? r.next() : base;
}

void change(bytes& frame, simt::random& r) {
  switch (r.below(9)) {
    case 0:
      return put(frame, 8 + r.below(8), r.next(), 1);
    case 1:
      return put(frame, 10, r.below(4), 1);
    case 2:
      return put(frame, 11, r.below(18), 1);
    case 3:
      return put(frame, 12, r.below(10), 1);
    case 4:
      return put(frame, 14, r.one_in(2) ? 0x3222 : r.one_in(2) ? 4 : 0, 2);
    case 5:
      return put(frame, 16 + 8 * r.below(2), telling(r), 8);
    case 6:
      return put(frame, 48 + r.below(16), telling(r), 1);
    case 7:
      return put(frame, 64 + 8 * r.below(8), telling(r), 8);
    default: {
      // A number of values that its shape agrees with.
      const std::uint64_t n = telling(r);
      put(frame, 16, n, 8);
      put(frame, 12, 1, 1);
      for (std::size_t i = 0; i < 8; ++i) put(frame, 64 + 8 * i, i == 0 ? n : 0, 8);
    }
  }
}

void compare(byte_view frame, std::map<std::int32_t, int>& seen) {
  std::array<std::uint64_t, 16> words;
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] = tersor::core::load_le<std::uint64_t>(octets(frame).data() + 8 * i);
  const header_verdict got = tersor::codec_detail::judge_header(
      words.data(), digest_of(frame), frame.size(), tersor::codec_detail::has_valid_book(words.data()));
  const auto want = tersor::codec_detail::open(octets(frame), false);
  ++seen[got.code];
  if (got.code != 0) {
    ASSERT_FALSE(want.has_value());
    ASSERT_EQ(got.code, static_cast<std::int32_t>(want.error().code)) << want.error().describe();
    return;
  }
  if (!want.has_value()) {
    // The index or the padding: not the header's fault.
    ASSERT_TRUE(want.error().code == tersor::errc::digest_mismatch ||
                want.error().code == tersor::errc::malformed);
    ASSERT_GE(want.error().byte_offset.value_or(0), kHeader) << want.error().describe();
    return;
  }
  ASSERT_EQ(got.frame_bytes, want->layout.frame_bytes);
  ASSERT_EQ(got.index_bytes, want->layout.index_bytes);
  ASSERT_EQ(got.tails_end, want->layout.tails_end);
}

TEST(header_verdict, is_that_of_the_cpu) {
  simt::random r(11);
  std::map<std::int32_t, int> seen;
  for (const bytes& good : good_frames()) {
    compare(good, seen);
    for (int i = 0; i < (kSlow ? 1500 : 8000); ++i) {
      bytes frame = good;
      for (std::uint64_t n = 1 + r.below(3); n > 0; --n) change(frame, r);
      if (!r.one_in(16)) put(frame, 40, digest_of(frame), 8);
      if (r.one_in(32)) put(frame, r.below(8), r.next(), 1);
      if (r.one_in(16)) frame.resize(kHeader + r.below(frame.size() - kHeader));
      compare(frame, seen);
      if (HasFailure()) return;
    }
  }
  for (const std::int32_t code : {0, 3, 4, 5, 6, 7, 8, 9}) EXPECT_GT(seen[code], 20) << "of code " << code;
}

}  // namespace
