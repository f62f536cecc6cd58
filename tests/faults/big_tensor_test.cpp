// Tensors of more than 2^32 values, and around 2^31: long runs only, as they take up to 14 GB of memory.
#include <cstring>
#include <fstream>

#include <gtest/gtest.h>

#include "../golden/sample_data.hpp"
#include "support.hpp"

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;

std::uint64_t available_bytes() {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("MemAvailable:")) return std::stoull(line.substr(13)) * 1024;
  }
  return 0;
}

/// Every block of 1 MiB is a different rotation of the pattern, so that a wrapped address shows.
void fill(bytes& data) {
  constexpr std::uint64_t kBlock = std::uint64_t{1} << 20;
  const bytes pattern = golden::sample(dtype::f8_e4m3, 2 * kBlock, golden::pattern::mixed, 3);
  for (std::uint64_t at = 0; at < data.size(); at += kBlock) {
    const std::uint64_t n = std::min(kBlock, data.size() - at);
    std::memcpy(data.data() + at, pattern.data() + at / kBlock * 7919 % kBlock, n);
  }
}

class big_tensor : public testing::TestWithParam<std::uint64_t> {};

TEST_P(big_tensor, round_trips) {
  const std::uint64_t n = GetParam();
  if (!faults::long_run()) GTEST_SKIP() << "TERSOR_LONG=1 asks for it";
  if (available_bytes() < 3 * n + (n >> 1)) GTEST_SKIP() << "not enough memory for " << n << " values";
  const tersor::context ctx = faults::make_context(0);
  bytes data(n);
  fill(data);
  const std::uint64_t shape[] = {n};
  for (const codec c : {codec::rank, codec::raw}) {
    bytes frame(tersor::encode_bound(c, dtype::f8_e4m3, n));
    const auto size = tersor::encode_into(ctx, {.type = dtype::f8_e4m3, .shape = shape, .data = data}, frame,
                                          {.codec = c, .raw_fallback = false});
    ASSERT_TRUE(size) << size.error().describe();
    frame.resize(*size);
    EXPECT_EQ(tersor::inspect(frame)->n_values, n);
    bytes back(n);
    const auto decoded = tersor::decode_into(ctx, frame, back);
    ASSERT_TRUE(decoded) << decoded.error().describe();
    ASSERT_EQ(std::memcmp(back.data(), data.data(), n), 0);
    // The last chunk on its own: its address lies past 2^32.
    const std::uint64_t chunk = c == codec::raw ? 16384 : 8192;
    const std::uint64_t last = (n - 1) / chunk;
    const auto part = tersor::decode_chunks(ctx, frame, last, 1, std::span(back).first(chunk));
    ASSERT_TRUE(part);
    ASSERT_EQ(std::memcmp(back.data(), data.data() + last * chunk, *part), 0);
    faults::publish(16, std::string(to_string(c)) + " round trip, memcmp", n, 0, "values in one tensor");
  }
}

INSTANTIATE_TEST_SUITE_P(values, big_tensor,
                         testing::Values((std::uint64_t{1} << 31) - 1, std::uint64_t{1} << 31,
                                         (std::uint64_t{1} << 31) + 1, (std::uint64_t{1} << 32) + 12'345));

}  // namespace
