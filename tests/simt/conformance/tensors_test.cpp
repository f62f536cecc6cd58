// Tensors through the kernels and through the CPU: the same bytes.
#include <gtest/gtest.h>

#include "twin_calls.hpp"

namespace {

using namespace twin;
using tersor::codec;
using tersor::dtype;
using tersor::cuda::tail_order;

constexpr std::array<std::uint64_t, 12> kSizes = {0,    1,    7,    255,  1023,      1024,
                                                  1025, 3072, 8192, 8193, 11 * 1024, 19 * 1024 + 5};

struct tensor_case {
  codec c;
  dtype type;
};

class tensors : public testing::TestWithParam<tensor_case> {};

void check_decode(codec c, dtype type, byte_view frame, byte_view data, std::uint64_t seed) {
  device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
  const std::uint64_t n_values = data.size() / tersor::value_bytes(type);
  // Sixteen bytes past a multiple of 256 in one half of the cases, anywhere in the other.
  const decoded out = decode(d, c, type, n_values, frame, seed % 2 == 0 ? 16 : seed % 16);
  ASSERT_TRUE(out.call.has_value()) << out.call.error().describe();
  expect_good(out.result, frame);
  EXPECT_EQ(difference(out.data, data), "");
  EXPECT_EQ(out.chunk_codes, bytes(out.chunk_codes.size()));
}

void check_free(codec c, dtype type, byte_view data, const tersor::codebook& book,
                const encode_choice& choice, std::uint64_t seed) {
  device d(seed, static_cast<std::uint32_t>(1 + seed % 3));
  const std::array<std::uint64_t, 1> shape = {data.size() / tersor::value_bytes(type)};
  encode_choice free = choice;
  free.order = tail_order::free;
  const encoded out = encode(d, c, type, shape, data, book, free);
  ASSERT_TRUE(out.call.has_value()) << out.call.error().describe();
  ASSERT_EQ(out.result.code, 0);
  expect_good(out.result, out.frame);
  bytes back(data.size());
  const auto n = tersor::decode_into(cpu(), out.frame, back);
  ASSERT_TRUE(n.has_value()) << n.error().describe();
  EXPECT_EQ(difference(back, data), "");
  check_decode(c, type, out.frame, data, seed + 1);
}

void check_tensor(codec c, dtype type, byte_view data, const tersor::codebook& book, std::uint64_t seed) {
  const std::array<std::uint64_t, 1> shape = {data.size() / tersor::value_bytes(type)};
  const bytes want = cpu_frame(c, type, shape, data, book);
  encode_choice choice;
  choice.book_on_device = seed % 3 == 0;
  choice.src_offset = seed % 2 == 0 ? 0 : seed % 16;
  {
    device d(seed, static_cast<std::uint32_t>(1 + seed / 2 % 3));
    const encoded out = encode(d, c, type, shape, data, book, choice);
    ASSERT_TRUE(out.call.has_value()) << out.call.error().describe();
    expect_good(out.result, want);
    ASSERT_EQ(difference(out.frame, want), "");
  }
  check_decode(c, type, want, data, seed + 2);
  check_free(c, type, data, book, choice, seed + 3);
}

TEST_P(tensors, every_kind_and_size) {
  const auto [c, type] = GetParam();
  std::uint64_t seed = 0;
  for (const std::uint64_t n : kSizes) {
    for (const kind k : kKinds) {
      ++seed;
      if (left_out(seed, 7)) continue;
      SCOPED_TRACE(label(c, type, n, k));
      const bytes data = make_data(type, n, k);
      check_tensor(c, type, data, book_of(type, data), seed);
      if (HasFailure()) return;
    }
  }
}

/// A codebook from other data: escapes of every number.
TEST_P(tensors, foreign_codebook) {
  const auto [c, type] = GetParam();
  const tersor::codebook book = book_of(type, make_data(type, 4096, kind::normal, 9));
  std::uint64_t seed = 0;
  for (const std::uint64_t n : {std::uint64_t{23}, std::uint64_t{1025}, std::uint64_t{9001}}) {
    for (const kind k : kKinds) {
      ++seed;
      if (left_out(seed, 5)) continue;
      SCOPED_TRACE(label(c, type, n, k));
      check_tensor(c, type, make_data(type, n, k), book, seed);
      if (HasFailure()) return;
    }
  }
}

std::vector<tensor_case> all_cases() {
  std::vector<tensor_case> all;
  for (const codec c : kCodecs) {
    for (const dtype type : kTypes) all.push_back({c, type});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(twin, tensors, testing::ValuesIn(all_cases()), [](const auto& one) {
  return std::string(tersor::to_string(one.param.c)) + "_" + std::string(tersor::to_string(one.param.type));
});

}  // namespace
