// Frames that are damaged, with the digests above the damage made right again: the kernel's code is the
// CPU's, and nothing outside the frame is touched.
#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "frame_damage.hpp"
#include "twin_calls.hpp"

namespace {

using namespace twin;
using tersor::codec;
using tersor::dtype;
using tersor::errc;

constexpr int kDamages = kSlow ? 12 : 300;

using tally = std::map<errc, int>;

void compare(codec c, dtype type, std::uint64_t n_values, byte_view frame, std::uint64_t seed, tally& seen) {
  device d(seed, static_cast<std::uint32_t>(1 + seed % 2));
  const verdict want = cpu_verdict(c, type, n_values, frame);
  const decoded got = decode(d, c, type, n_values, frame, seed % 3);
  ASSERT_TRUE(got.call.has_value()) << got.call.error().describe();
  ++seen[want.code];
  ASSERT_EQ(static_cast<errc>(got.result.code), want.code);
  if (want.judged_chunks || want.code == errc::ok) {
    ASSERT_EQ(got.result.chunk, want.chunk);
    if (want.chunk != tersor::cuda::kNoChunk) {
      ASSERT_EQ(d.download_value(got.chunk_codes_dev + want.chunk), static_cast<std::uint8_t>(want.code));
    }
  }
  if (want.code == errc::ok) {
    ASSERT_EQ(difference(got.data, want.data), "");
  }
}

struct hostile_case {
  codec c;
  dtype type;
};
class hostile : public testing::TestWithParam<hostile_case> {};

TEST_P(hostile, damages) {
  const auto [c, type] = GetParam();
  tally seen;
  simt::random r(static_cast<std::uint64_t>(type) * 16 + static_cast<std::uint64_t>(c));
  for (const std::uint64_t n : {std::uint64_t{1500}, std::uint64_t{9 * 1024 + 5}}) {
    const std::array<std::uint64_t, 1> shape = {n};
    const bytes data = make_data(type, n, kind::mixed);
    const tersor::codebook book = book_of(type, make_data(type, 4096, kind::normal));
    const bytes good = cpu_frame(c, type, shape, data, book);
    for (int i = 0; i < (n < 5000 ? 2 * kDamages : kDamages); ++i) {
      const damage one = damage_frame(good, r);
      SCOPED_TRACE(one.what + ", number " + std::to_string(i));
      compare(c, type, n, one.frame, r.next(), seen);
      if (HasFailure()) return;
    }
  }
  if (!kSlow) {
    for (const errc code : {errc::malformed, errc::digest_mismatch, errc::truncated}) {
      EXPECT_GT(seen[code], 5) << tersor::to_string(code);
    }
  }
}

/// The header says another thing than the caller.
TEST_P(hostile, other_expectations) {
  const auto [c, type] = GetParam();
  tally seen;
  const std::array<std::uint64_t, 1> shape = {9000};
  const bytes data = make_data(type, shape[0], kind::mixed);
  const bytes frame = cpu_frame(c, type, shape, data, book_of(type, data));
  std::uint64_t seed = 0;
  for (const codec other : kCodecs) {
    for (const dtype t : kTypes) {
      for (const std::uint64_t n : {0u, 1u, 8192u, 8999u, 9000u, 9001u, 40000u}) {
        SCOPED_TRACE(label(other, t, n, kind::mixed));
        ++seed;
        const bool same = other == c && t == type && n == shape[0];
        if (!same && left_out(seed, 5)) continue;
        compare(other, t, n, frame, seed, seen);
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_EQ(seen[errc::ok], 1);
}

/// Bytes after the frame are no fault, and cuts of any length are.
TEST_P(hostile, other_lengths) {
  const auto [c, type] = GetParam();
  tally seen;
  const std::array<std::uint64_t, 1> shape = {1500};
  const bytes data = make_data(type, shape[0], kind::heavy_tails);
  const bytes frame = cpu_frame(c, type, shape, data, book_of(type, data));
  for (std::size_t n = 0; n < frame.size() + 300; n += n < 200 || n + 140 > frame.size() ? 7u : 61u) {
    if (n != frame.size() && left_out(n, 5)) continue;
    SCOPED_TRACE(n);
    bytes cut = frame;
    cut.resize(n, std::byte{0x77});
    compare(c, type, shape[0], cut, n, seen);
    if (HasFailure()) return;
  }
  EXPECT_GT(seen[errc::ok], 2);
  EXPECT_GT(seen[errc::truncated], 2);
}

std::vector<hostile_case> all_cases() {
  std::vector<hostile_case> all;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) all.push_back({c, type});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(twin, hostile, testing::ValuesIn(all_cases()), [](const auto& one) {
  return std::string(tersor::to_string(one.param.c)) + "_" + std::string(tersor::to_string(one.param.type));
});

std::uint64_t word_at(byte_view frame, std::size_t at, std::size_t n_bytes) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < n_bytes && at + i < frame.size(); ++i)
    out |= std::to_integer<std::uint64_t>(frame[at + i]) << (8 * i);
  return out;
}

TEST(hostile_vectors, frames_that_must_fail) {
  int n_files = 0;
  tally seen;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(TERSOR_GOLDEN_VECTORS) + "/must-fail")) {
    if (entry.path().extension() != ".tersor") continue;
    SCOPED_TRACE(entry.path().filename());
    ++n_files;
    const bytes frame = read_vector("must-fail/" + entry.path().filename().string());
    const std::uint64_t c = word_at(frame, 10, 1), type = word_at(frame, 11, 1), n = word_at(frame, 16, 8);
    const bool known_codec = c == 1 || c == 2;
    const bool known_type = type == 1 || type == 2 || type == 4 || type == 5;
    // What the frame says, as far as a caller could have meant it.
    compare(known_codec ? static_cast<codec>(c) : codec::rank,
            known_type ? static_cast<dtype>(type) : dtype::bf16, n <= 100000 ? n : 9001, frame, 7, seen);
    const bool trails = entry.path().filename().string().starts_with("trailing");
    if (known_codec && known_type) {
      EXPECT_EQ(seen[errc::ok], trails ? 1 : 0);
    }
    seen[errc::ok] = 0;
  }
  EXPECT_GE(n_files, 60);
}

TEST(hostile_vectors, good_frames) {
  int n_files = 0;
  tally seen;
  for (const auto& entry : std::filesystem::directory_iterator(TERSOR_GOLDEN_VECTORS)) {
    if (entry.path().extension() != ".tersor") continue;
    const bytes frame = read_vector(entry.path().filename().string());
    const std::uint64_t c = word_at(frame, 10, 1), type = word_at(frame, 11, 1), n = word_at(frame, 16, 8);
    if (c == 0 || type == 3) continue;
    SCOPED_TRACE(entry.path().filename());
    ++n_files;
    compare(static_cast<codec>(c), static_cast<dtype>(type), n, frame, 8, seen);
  }
  EXPECT_GE(n_files, 30);
  EXPECT_EQ(seen[errc::ok], n_files);
}

}  // namespace
