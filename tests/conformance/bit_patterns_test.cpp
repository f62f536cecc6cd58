// Every bit pattern at every place of a tile, as an escape, as each codebook entry and in raw tiles, and
// every tail length, through every codec and backend; compared as bytes, so that NaN payloads and -0 count.
#include <cstring>

#include <gtest/gtest.h>

#include "../faults/support.hpp"

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;

constexpr std::uint64_t kPatterns = 65536;
constexpr std::uint64_t kTile = 1024;
constexpr codec kCodecs[] = {codec::raw, codec::top16, codec::rank};

void put16(bytes& data, std::uint64_t i, std::uint64_t value) {
  data[2 * i] = static_cast<std::byte>(value & 0xff);
  data[2 * i + 1] = static_cast<std::byte>(value >> 8 & 0xff);
}

class bit_patterns : public testing::TestWithParam<std::string> {
 protected:
  bit_patterns() : ctx_(faults::make_context(1, GetParam())) {}

  void expect_same(codec c, dtype type, const bytes& data, const tersor::codebook* book) {
    const std::uint64_t n = data.size() / tersor::value_bytes(type);
    const std::uint64_t shape[] = {n};
    frame_.resize(tersor::encode_bound(c, type, n));
    decoded_.assign(data.size(), std::byte{0x5a});
    tersor::encode_options options{.codec = c, .raw_fallback = false};
    if (book != nullptr) options.book = *book;
    const auto size =
        tersor::encode_into(ctx_, {.type = type, .shape = shape, .data = data}, frame_, options);
    ASSERT_TRUE(size) << size.error().describe();
    const auto back = tersor::decode_into(ctx_, std::span(frame_).first(*size), decoded_);
    ASSERT_TRUE(back) << back.error().describe();
    values_ += n;
    if (n != 0 && std::memcmp(data.data(), decoded_.data(), data.size()) != 0) ++wrong_;
    ASSERT_EQ(wrong_, 0U) << to_string(c) << ' ' << to_string(type) << ' ' << n << " values";
    if (book != nullptr) raw_tiles_ += tersor::inspect(std::span(frame_).first(*size))->raw_tiles;
  }

  void TearDown() override { faults::publish(1, GetParam(), values_, wrong_, "values"); }

  tersor::context ctx_;
  bytes frame_, decoded_;
  std::uint64_t values_ = 0, wrong_ = 0, raw_tiles_ = 0;
};

/// Rotations of the tensor by one place each bring every value to every place of a tile.
std::uint64_t rotation_step() {
  return faults::long_run() ? 1 : 61;
}

TEST_P(bit_patterns, every_pattern_at_every_place_in_order) {
  bytes data(kPatterns * 2);
  for (std::uint64_t turn = 0; turn < kTile; turn += rotation_step()) {
    for (std::uint64_t i = 0; i < kPatterns; ++i) put16(data, i, i + turn);
    for (const codec c : kCodecs) ASSERT_NO_FATAL_FAILURE(expect_same(c, dtype::bf16, data, nullptr));
    ASSERT_NO_FATAL_FAILURE(expect_same(codec::rank, dtype::f16, data, nullptr));
    ASSERT_NO_FATAL_FAILURE(expect_same(codec::top16, dtype::f16, data, nullptr));
  }
}

TEST_P(bit_patterns, every_pattern_as_every_codebook_entry) {
  // 16 neighbouring exponents fill the codebook: their 16 * 2 * 128 patterns, spread over the tiles.
  constexpr std::uint64_t kWindow = 4096;
  bytes data(kWindow * 2);
  for (std::uint64_t window = 0; window < 16; ++window) {
    tersor::codebook book;
    for (unsigned i = 0; i < 16; ++i) book.symbols[i] = static_cast<std::uint8_t>(window * 16 + i);
    if (window % 2 == 1) std::reverse(book.symbols.begin(), book.symbols.end());
    for (std::uint64_t turn = 0; turn < kTile; turn += rotation_step()) {
      for (std::uint64_t i = 0; i < kWindow; ++i) {
        const std::uint64_t v = (i + turn) * 1607 % kWindow;
        put16(data, i, (v >> 11) << 15 | (window << 11) | (v & 0x7ff));
      }
      ASSERT_NO_FATAL_FAILURE(expect_same(codec::rank, dtype::bf16, data, &book));
      ASSERT_NO_FATAL_FAILURE(expect_same(codec::top16, dtype::bf16, data, &book));
    }
  }
  EXPECT_EQ(raw_tiles_, 0U) << "the patterns should have been coded";
}

TEST_P(bit_patterns, every_pattern_as_an_escape) {
  // One value in 32 is the pattern, the others are frequent; two codebooks leave each exponent out once.
  constexpr std::uint64_t kSpacing = 32;
  bytes data(kPatterns * 2);
  const std::uint64_t step = faults::long_run() ? 1 : 113;
  for (unsigned low = 0; low < 2; ++low) {
    tersor::codebook book;
    for (unsigned i = 0; i < 16; ++i) book.symbols[i] = static_cast<std::uint8_t>(low != 0 ? i : 240 + i);
    for (std::uint64_t turn = 0; turn < kTile; turn += step) {
      // Over 1,024 turns every pattern meets 32 places, one in each position of a lane.
      for (std::uint64_t i = 0; i < kPatterns; ++i) {
        const std::uint64_t usual =
            std::uint64_t{book.symbols[i * i % 3]} << 7 | (i * 2654435761U >> 9 & 0x807f);
        const bool escape = i % kSpacing == turn % kSpacing;
        put16(data, i, escape ? i / kSpacing * kSpacing + turn / kSpacing : usual);
      }
      ASSERT_NO_FATAL_FAILURE(expect_same(codec::rank, dtype::bf16, data, &book));
      ASSERT_NO_FATAL_FAILURE(expect_same(codec::top16, dtype::bf16, data, &book));
    }
  }
}

TEST_P(bit_patterns, every_tail_length) {
  const std::uint64_t bases[] = {0, kTile, 8 * kTile - 128, 16 * kTile - 256};
  for (const dtype type : {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2}) {
    for (const std::uint64_t base : bases) {
      if (base != 0 && type != dtype::bf16 && !faults::long_run()) continue;
      for (std::uint64_t tail = 0; tail <= 256; ++tail) {
        const bytes data = faults::mixed_values(type, base + tail, tail + 1);
        for (const codec c : kCodecs) ASSERT_NO_FATAL_FAILURE(expect_same(c, type, data, nullptr));
      }
    }
  }
}

TEST_P(bit_patterns, every_byte_pattern_at_every_place) {
  bytes data(kTile * 2);
  for (std::uint64_t turn = 0; turn < kTile; turn += faults::long_run() ? 1U : 7U) {
    for (std::uint64_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 5 + turn);
    for (const dtype type : {dtype::f8_e4m3, dtype::f8_e5m2}) {
      for (const codec c : kCodecs) ASSERT_NO_FATAL_FAILURE(expect_same(c, type, data, nullptr));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(codec, bit_patterns, testing::ValuesIn(faults::backend_names()),
                         [](const auto& backend) { return backend.param; });

}  // namespace
