// Packed matrices through the C ABI.
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include <tersor/packed.hpp>
#include <tersor/tersor.h>

namespace {

constexpr std::uint64_t kRows = 48, kCols = 200;

/// Few exponents, one of them rare.
std::vector<std::uint16_t> weights() {
  std::vector<std::uint16_t> v(kRows * kCols);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<std::uint16_t>((i % 301 == 0 ? 90 : 118 + i % 7) << 7 | (i * 37 & 0x807f));
  return v;
}

class packed_c_api : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(tersor_context_create(2, nullptr, &ctx_), TERSOR_OK); }
  void TearDown() override { tersor_context_destroy(ctx_); }

  [[nodiscard]] tersor_matrix source() const {
    return {.dtype = TERSOR_BF16,
            .order = TERSOR_ROW_MAJOR,
            .rows = kRows,
            .cols = kCols,
            .stride = 0,
            .data = values_.data(),
            .n_bytes = 2 * values_.size()};
  }

  tersor_context* ctx_ = nullptr;
  std::vector<std::uint16_t> values_ = weights();
};

TEST_F(packed_c_api, packs_inspects_and_unpacks) {
  for (const std::int32_t layout : {TERSOR_LAYOUT_PACKED, TERSOR_LAYOUT_TCATBE}) {
    std::vector<std::uint8_t> packed(tersor_pack_bound(layout, 0, TERSOR_BF16, kRows, kCols));
    ASSERT_GT(packed.size(), 0U);
    std::uint64_t n = 0;
    const tersor_matrix src = source();
    ASSERT_EQ(tersor_pack(ctx_, layout, 0, &src, packed.data(), packed.size(), &n), TERSOR_OK)
        << tersor_last_message();
    tersor_matrix_info info;
    ASSERT_EQ(tersor_inspect_packed(packed.data(), n, &info), TERSOR_OK);
    EXPECT_EQ(info.layout, layout);
    EXPECT_EQ(info.dtype, TERSOR_BF16);
    EXPECT_EQ(info.rows, kRows);
    EXPECT_EQ(info.cols, kCols);
    EXPECT_EQ(info.n_bytes, n);
    const auto same = tersor::inspect_packed(std::as_bytes(std::span(packed)));
    ASSERT_TRUE(same);
    EXPECT_EQ(info.digest, same->digest);
    EXPECT_EQ(info.digests_at, same->digests_at);
    std::vector<std::uint16_t> back(values_.size());
    ASSERT_EQ(tersor_unpack(ctx_, packed.data(), n, TERSOR_ROW_MAJOR, 0, back.data(), 2 * back.size()),
              TERSOR_OK)
        << tersor_last_message();
    EXPECT_TRUE(back == values_);
    ASSERT_EQ(tersor_unpack(ctx_, packed.data(), n, TERSOR_COLUMN_MAJOR, 0, back.data(), 2 * back.size()),
              TERSOR_OK);
    EXPECT_EQ(back[5 * kRows + 3], values_[3 * kCols + 5]);
    packed[150] ^= 1;
    EXPECT_EQ(tersor_unpack(ctx_, packed.data(), n, TERSOR_ROW_MAJOR, 0, back.data(), 2 * back.size()),
              TERSOR_DIGEST_MISMATCH);
  }
}

TEST_F(packed_c_api, refuses_bad_arguments) {
  std::vector<std::uint8_t> packed(tersor_pack_bound(TERSOR_LAYOUT_PACKED, 0, TERSOR_BF16, kRows, kCols));
  std::uint64_t n = 0;
  tersor_matrix src = source();
  tersor_matrix_info info;
  const auto pack = [&](std::int32_t layout, std::uint32_t places) {
    return tersor_pack(ctx_, layout, places, &src, packed.data(), packed.size(), &n);
  };
  EXPECT_EQ(pack(7, 0), TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(pack(TERSOR_LAYOUT_PACKED, 12), TERSOR_INVALID_ARGUMENT);
  src.order = 2;
  EXPECT_EQ(pack(TERSOR_LAYOUT_PACKED, 0), TERSOR_INVALID_ARGUMENT);
  src = source();
  src.dtype = TERSOR_F32;
  EXPECT_EQ(pack(TERSOR_LAYOUT_PACKED, 0), TERSOR_UNSUPPORTED);
  src.dtype = 99;
  EXPECT_EQ(pack(TERSOR_LAYOUT_PACKED, 0), TERSOR_INVALID_ARGUMENT);
  src = source();
  src.data = nullptr;
  EXPECT_EQ(pack(TERSOR_LAYOUT_PACKED, 0), TERSOR_INVALID_ARGUMENT);
  src = source();
  EXPECT_EQ(tersor_pack(nullptr, TERSOR_LAYOUT_PACKED, 0, &src, packed.data(), packed.size(), &n),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_pack(ctx_, TERSOR_LAYOUT_PACKED, 0, nullptr, packed.data(), packed.size(), &n),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_pack(ctx_, TERSOR_LAYOUT_PACKED, 0, &src, packed.data(), packed.size(), nullptr),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_pack(ctx_, TERSOR_LAYOUT_PACKED, 0, &src, packed.data(), 1000, &n),
            TERSOR_DESTINATION_TOO_SMALL);
  EXPECT_NE(std::strlen(tersor_last_message()), 0U);
  EXPECT_EQ(tersor_inspect_packed(packed.data(), 100, &info), TERSOR_TRUNCATED);
  EXPECT_EQ(tersor_inspect_packed(packed.data(), packed.size(), nullptr), TERSOR_INVALID_ARGUMENT);
  ASSERT_EQ(pack(TERSOR_LAYOUT_PACKED, 0), TERSOR_OK);
  std::vector<std::uint16_t> back(values_.size());
  EXPECT_EQ(tersor_unpack(ctx_, packed.data(), n, TERSOR_ROW_MAJOR, kCols - 1, back.data(), 2 * back.size()),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_unpack(ctx_, packed.data(), n, 5, 0, back.data(), 2 * back.size()),
            TERSOR_INVALID_ARGUMENT);
  EXPECT_EQ(tersor_unpack(ctx_, packed.data(), n, TERSOR_ROW_MAJOR, 0, back.data(), 2 * back.size() - 1),
            TERSOR_DESTINATION_TOO_SMALL);
  EXPECT_EQ(tersor_pack_bound(9, 0, TERSOR_BF16, kRows, kCols), 0U);
  EXPECT_EQ(tersor_pack_bound(TERSOR_LAYOUT_TCATBE, 0, TERSOR_F16, kRows, kCols), 0U);
}

}  // namespace
