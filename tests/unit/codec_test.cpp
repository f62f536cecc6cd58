// Round trips of every codec and dtype through the public API, bitwise.
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include <tersor/codec.hpp>

namespace {

using tersor::codec;
using tersor::dtype;

std::vector<std::byte> gaussian_bf16(std::size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<std::byte> bytes(n * 2);
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(rng)) >> 16);
    std::memcpy(bytes.data() + 2 * i, &bits, 2);
  }
  return bytes;
}

std::vector<std::byte> random_bytes(std::size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<std::byte> bytes(n);
  for (auto& b : bytes) b = static_cast<std::byte>(rng());
  return bytes;
}

void round_trip(const tersor::context& ctx, codec c, dtype type, const std::vector<std::byte>& data,
                bool raw_fallback) {
  const std::vector<std::uint64_t> shape = {data.size() / tersor::value_bytes(type)};
  const tersor::tensor_view view{.type = type, .shape = shape, .data = data};
  const auto frame = tersor::encode(ctx, view, {.codec = c, .raw_fallback = raw_fallback});
  ASSERT_TRUE(frame) << frame.error().describe();
  EXPECT_LE(frame->size(), tersor::encode_bound(c, type, shape[0]));
  const auto back = tersor::decode(ctx, *frame);
  ASSERT_TRUE(back) << back.error().describe();
  EXPECT_EQ(back->type, type);
  EXPECT_EQ(back->shape, shape);
  EXPECT_TRUE(back->data == data);
}

class every_backend : public testing::TestWithParam<std::string> {};

TEST_P(every_backend, round_trips_gaussian_bf16) {
  const auto ctx = tersor::context::create(1, GetParam());
  ASSERT_TRUE(ctx);
  EXPECT_EQ(ctx->backend(), GetParam());
  for (const std::size_t n :
       std::initializer_list<std::size_t>{0, 1, 7, 1023, 1024, 1025, 8192, 8193, 100000}) {
    for (const codec c : {codec::raw, codec::top16, codec::rank}) {
      round_trip(*ctx, c, dtype::bf16, gaussian_bf16(n, 1), false);
    }
  }
}

TEST_P(every_backend, round_trips_random_bits_of_every_coded_dtype) {
  const auto ctx = tersor::context::create(2, GetParam());
  ASSERT_TRUE(ctx);
  for (const dtype type : {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const codec c : {codec::top16, codec::rank}) {
      round_trip(*ctx, c, type, random_bytes(40000 * tersor::value_bytes(type), 7), false);
    }
  }
}

TEST_P(every_backend, reaches_the_documented_ratio) {
  const auto ctx = tersor::context::create(1, GetParam());
  ASSERT_TRUE(ctx);
  const auto data = gaussian_bf16(std::size_t{1} << 20, 3);
  const std::vector<std::uint64_t> shape = {data.size() / 2};
  const tersor::tensor_view view{.type = dtype::bf16, .shape = shape, .data = data};
  const auto rank = tersor::encode(*ctx, view, {.codec = codec::rank});
  const auto top16 = tersor::encode(*ctx, view, {.codec = codec::top16});
  ASSERT_TRUE(rank && top16);
  EXPECT_GT(static_cast<double>(data.size()) / static_cast<double>(rank->size()), 1.49);
  EXPECT_GT(static_cast<double>(data.size()) / static_cast<double>(top16->size()), 1.32);
}

std::vector<std::string> supported() {
  std::vector<std::string> names;
  for (const auto& backend : tersor::backends()) {
    if (backend.supported) names.emplace_back(backend.name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(codec, every_backend, testing::ValuesIn(supported()),
                         [](const auto& backend) { return backend.param; });

}  // namespace
