// Packed matrices through the public API: round trips to the bit, canonical bytes, and damage that must be
// seen.
#include "codec/packed_matrix.hpp"

#include <bit>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include <tersor/packed.hpp>

namespace {

using tersor::dtype;
using tersor::errc;
using tersor::matrix_order;
using tersor::matrix_view;
using values = std::vector<std::uint16_t>;

std::span<const std::byte> bytes_of(const values& v) {
  return std::as_bytes(std::span(v));
}
std::span<std::byte> bytes_of(values& v) {
  return std::as_writable_bytes(std::span(v));
}

enum class content { trained, constant, zeros, nans, counting, random, subnormal, rare };
constexpr std::array kContents = {content::trained,  content::constant, content::zeros,     content::nans,
                                  content::counting, content::random,   content::subnormal, content::rare};

values make(content what, dtype type, std::uint64_t n) {
  const bool half = type == dtype::f16;
  std::mt19937 rng(static_cast<unsigned>(n) * 8 + static_cast<unsigned>(what));
  std::normal_distribution<float> normal(0.0F, 0.02F);
  const auto weight = [&] {
    // FP16 by the exponents of a BF16 weight: the distribution matters here, not the values.
    const auto bits = std::bit_cast<std::uint32_t>(normal(rng));
    const std::uint32_t exponent = bits >> 23 & 0xff;
    if (!half) return static_cast<std::uint16_t>(bits >> 16);
    return static_cast<std::uint16_t>((bits >> 16 & 0x8000) | (exponent > 112 ? exponent - 112 : 0) << 10 |
                                      (bits >> 13 & 0x3ff));
  };
  const auto noise = [&] { return static_cast<std::uint16_t>(rng()); };
  const auto mantissa = static_cast<std::uint16_t>(half ? 0x3ff : 0x7f);
  const auto exponent = static_cast<std::uint16_t>(half ? 0x7c00 : 0x7f80);
  values v(n);
  for (std::uint64_t i = 0; i < n; ++i) {
    switch (what) {
      case content::trained:
        v[i] = weight();
        break;
      case content::constant:
        v[i] = half ? 0x3555 : 0x3f9a;
        break;
      case content::zeros:
        v[i] = 0;
        break;
      case content::nans:
        v[i] = static_cast<std::uint16_t>(exponent | (noise() & ~exponent) | 1);
        break;
      case content::counting:
        v[i] = static_cast<std::uint16_t>(i);
        break;
      case content::random:
        v[i] = noise();
        break;
      case content::subnormal:
        v[i] = static_cast<std::uint16_t>((noise() & 0x8000) | (noise() & mantissa));
        break;
      case content::rare:
        v[i] = rng() % 20 == 0 ? noise() : weight();
        break;
    }
  }
  return v;
}

const tersor::context& one_thread() {
  static const auto kContext = tersor::context::create(1);
  return *kContext;
}

std::vector<std::byte> pack_or_fail(const matrix_view& view, const tersor::pack_options& options = {},
                                    const tersor::context& ctx = one_thread()) {
  auto packed = tersor::pack(ctx, view, options);
  if (!packed) ADD_FAILURE() << packed.error().describe();
  return packed ? std::move(*packed) : std::vector<std::byte>();
}

std::uint64_t up(std::uint64_t n) {
  return (n + 127) / 128 * 128;
}

/// The size that spec/packed.md documents.
std::uint64_t documented_size(const tersor::matrix_info& info) {
  const std::uint64_t blocks = (info.rows + 15) / 16 * ((info.cols + 127) / 128);
  const std::uint64_t block = (info.type == dtype::f16 ? 3600 : 2832) + 2 * info.inline_escapes;
  return 128 + up(blocks * block) + up(4 * info.n_overflow) + up(8 * blocks);
}

void round_trip(dtype type, std::uint64_t rows, std::uint64_t cols, content what,
                std::uint32_t inline_escapes) {
  SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + " content " +
               std::to_string(static_cast<int>(what)) + " inline " + std::to_string(inline_escapes));
  const values src = make(what, type, rows * cols);
  const tersor::pack_options options{.inline_escapes = inline_escapes};
  const auto packed =
      pack_or_fail({.type = type, .rows = rows, .cols = cols, .data = bytes_of(src)}, options);
  const auto info = tersor::inspect_packed(packed);
  ASSERT_TRUE(info) << info.error().describe();
  EXPECT_EQ(info->rows, rows);
  EXPECT_EQ(info->cols, cols);
  EXPECT_EQ(info->type, type);
  EXPECT_EQ(info->inline_escapes, inline_escapes == 0 ? tersor::kDefaultInlineEscapes : inline_escapes);
  EXPECT_EQ(info->n_bytes, packed.size());
  EXPECT_EQ(info->n_bytes, documented_size(*info));
  EXPECT_LE(info->n_bytes, tersor::pack_bound(type, rows, cols, options));
  values back(src.size(), 0xabcd);
  const auto unpacked = tersor::unpack_into(one_thread(), packed, bytes_of(back));
  ASSERT_TRUE(unpacked) << unpacked.error().describe();
  EXPECT_TRUE(back == src);
}

class every_matrix_dtype : public testing::TestWithParam<dtype> {};

TEST_P(every_matrix_dtype, round_trips_any_shape) {
  for (const std::uint64_t rows : {1U, 3U, 8U, 15U, 16U, 17U, 33U, 127U, 300U}) {
    for (const std::uint64_t cols : {1U, 2U, 7U, 15U, 127U, 128U, 129U, 131U, 255U, 257U, 300U})
      round_trip(GetParam(), rows, cols, content::trained, 0);
  }
}

TEST_P(every_matrix_dtype, round_trips_any_content_with_any_number_of_inline_places) {
  for (const content what : kContents) {
    for (const std::uint32_t inline_escapes : {0U, 8U, 48U, 512U, 1024U}) {
      round_trip(GetParam(), 33, 261, what, inline_escapes);
      round_trip(GetParam(), 1, 1, what, inline_escapes);
    }
  }
}

TEST_P(every_matrix_dtype, round_trips_every_bit_pattern) {
  round_trip(GetParam(), 256, 256, content::counting, 0);
  round_trip(GetParam(), 65536, 1, content::counting, 8);
}

TEST_P(every_matrix_dtype, packs_trained_weights_well) {
  const values src = make(content::trained, GetParam(), 512 * 1024);
  const auto packed = pack_or_fail({.type = GetParam(), .rows = 512, .cols = 1024, .data = bytes_of(src)});
  const auto info = tersor::inspect_packed(packed);
  ASSERT_TRUE(info);
  EXPECT_LT(info->bits_per_weight(), GetParam() == dtype::f16 ? 14.55 : 11.55);
}

TEST_P(every_matrix_dtype, takes_both_orders_and_strides) {
  const std::uint64_t rows = 37, cols = 141, stride = 160;
  const values src = make(content::rare, GetParam(), rows * cols);
  const auto expected = pack_or_fail({.type = GetParam(), .rows = rows, .cols = cols, .data = bytes_of(src)});
  for (const bool by_rows : {true, false}) {
    const auto order = by_rows ? matrix_order::row_major : matrix_order::column_major;
    const std::uint64_t lines = by_rows ? rows : cols, length = by_rows ? cols : rows;
    const auto at = [&](std::uint64_t row, std::uint64_t col) {
      return by_rows ? row * stride + col : col * stride + row;
    };
    // Without the gap behind the last row or column.
    values wide((lines - 1) * stride + length, 0x7777);
    for (std::uint64_t r = 0; r < rows; ++r) {
      for (std::uint64_t c = 0; c < cols; ++c) wide[at(r, c)] = src[r * cols + c];
    }
    const matrix_view view{.type = GetParam(),
                           .rows = rows,
                           .cols = cols,
                           .order = order,
                           .stride = stride,
                           .data = bytes_of(wide)};
    EXPECT_TRUE(pack_or_fail(view) == expected);
    values back(wide.size(), 0x7777);
    ASSERT_TRUE(tersor::unpack_into(one_thread(), expected, bytes_of(back), order, stride));
    EXPECT_TRUE(back == wide);
    values dense(rows * cols);
    ASSERT_TRUE(tersor::unpack_into(one_thread(), expected, bytes_of(dense), order));
    for (std::uint64_t r = 0; r < rows; ++r) {
      for (std::uint64_t c = 0; c < cols; ++c)
        ASSERT_EQ(dense[by_rows ? r * cols + c : c * rows + r], src[r * cols + c]);
    }
  }
}

TEST_P(every_matrix_dtype, gives_the_same_bytes_with_any_threads_and_backend) {
  const values src = make(content::rare, GetParam(), 400 * 1000);
  const matrix_view view{.type = GetParam(), .rows = 400, .cols = 1000, .data = bytes_of(src)};
  const auto expected = pack_or_fail(view);
  for (const auto& backend : tersor::backends()) {
    for (const unsigned threads : {1U, 2U, 5U}) {
      if (!backend.supported) continue;
      const auto ctx = tersor::context::create(threads, backend.name);
      ASSERT_TRUE(ctx);
      EXPECT_TRUE(pack_or_fail(view, {}, *ctx) == expected);
      values back(src.size());
      ASSERT_TRUE(tersor::unpack_into(*ctx, expected, bytes_of(back)));
      EXPECT_TRUE(back == src);
    }
  }
}

TEST_P(every_matrix_dtype, sees_every_flipped_bit) {
  for (const content what : {content::rare, content::constant}) {
    const std::uint64_t rows = 17, cols = 130;
    const values src = make(what, GetParam(), rows * cols);
    auto packed = pack_or_fail({.type = GetParam(), .rows = rows, .cols = cols, .data = bytes_of(src)},
                               {.inline_escapes = 8});
    values back(src.size());
    for (std::size_t bit = 0; bit < 8 * packed.size(); ++bit) {
      const auto mask = static_cast<std::byte>(1u << bit % 8);
      packed[bit / 8] ^= mask;
      ASSERT_FALSE(tersor::unpack_into(one_thread(), packed, bytes_of(back))) << "bit " << bit;
      packed[bit / 8] ^= mask;
    }
    EXPECT_TRUE(tersor::unpack_into(one_thread(), packed, bytes_of(back)));
  }
}

TEST_P(every_matrix_dtype, sees_every_truncation_and_what_follows) {
  const values src = make(content::rare, GetParam(), 20 * 140);
  auto packed = pack_or_fail({.type = GetParam(), .rows = 20, .cols = 140, .data = bytes_of(src)});
  values back(src.size());
  for (std::size_t n = 0; n < packed.size(); ++n) {
    // A copy of that size, so that a read behind its end is a fault.
    const std::vector<std::byte> part(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(n));
    const auto unpacked = tersor::unpack_into(one_thread(), part, bytes_of(back));
    ASSERT_FALSE(unpacked);
    ASSERT_EQ(unpacked.error().code, errc::truncated);
  }
  packed.push_back({});
  EXPECT_EQ(tersor::unpack_into(one_thread(), packed, bytes_of(back)).error().code, errc::malformed);
}

TEST_P(every_matrix_dtype, never_writes_behind_a_destination_that_is_too_small) {
  const std::uint64_t rows = 30, cols = 150;
  const values src = make(content::random, GetParam(), rows * cols);
  const matrix_view view{.type = GetParam(), .rows = rows, .cols = cols, .data = bytes_of(src)};
  const auto packed = pack_or_fail(view, {.inline_escapes = 8});
  constexpr std::size_t kGuard = 256;
  for (std::size_t missing = 1; missing < packed.size(); missing += missing < 200 ? 1 : 97) {
    const std::size_t n = packed.size() - missing;
    std::vector<std::byte> dst(n + kGuard, std::byte{0x5a});
    const auto size = tersor::pack_into(one_thread(), view, std::span(dst).first(n), {.inline_escapes = 8});
    ASSERT_FALSE(size);
    ASSERT_EQ(size.error().code, errc::destination_too_small);
    ASSERT_TRUE(std::all_of(dst.begin() + static_cast<std::ptrdiff_t>(n), dst.end(),
                            [](std::byte b) { return b == std::byte{0x5a}; }));
  }
  std::vector<std::byte> exact(packed.size());
  ASSERT_TRUE(tersor::pack_into(one_thread(), view, exact, {.inline_escapes = 8}));
  EXPECT_TRUE(exact == packed);
  values back(src.size() - 1);
  EXPECT_EQ(tersor::unpack_into(one_thread(), packed, bytes_of(back)).error().code,
            errc::destination_too_small);
}

/// Headers whose digest is right say anything at all: no answer but an error, and no access outside.
TEST_P(every_matrix_dtype, survives_headers_that_lie) {
  namespace detail = tersor::codec_detail;
  const values src = make(content::rare, GetParam(), 20 * 140);
  const auto packed = pack_or_fail({.type = GetParam(), .rows = 20, .cols = 140, .data = bytes_of(src)});
  const auto original = detail::load_matrix_words(reinterpret_cast<const std::uint8_t*>(packed.data()));
  values back(src.size());
  std::mt19937_64 rng(1);
  for (std::size_t word = 0; word < original.size(); ++word) {
    if (word == detail::kWordHeaderDigest) continue;
    for (unsigned i = 0; i < 300; ++i) {
      auto damaged = packed;
      auto words = original;
      words[word] = i < 64   ? original[word] ^ std::uint64_t{1} << i
                    : i < 90 ? original[word] + i - 77
                             : rng() >> (i % 64);
      if (words[word] == original[word]) continue;
      detail::seal_matrix(words, reinterpret_cast<std::uint8_t*>(damaged.data()));
      ASSERT_FALSE(tersor::unpack_into(one_thread(), damaged, bytes_of(back))) << word << ' ' << words[word];
    }
  }
}

TEST_P(every_matrix_dtype, says_which_block_is_damaged) {
  const values src = make(content::trained, GetParam(), 64 * 256);
  auto packed = pack_or_fail({.type = GetParam(), .rows = 64, .cols = 256, .data = bytes_of(src)});
  const auto info = tersor::inspect_packed(packed);
  ASSERT_TRUE(info);
  packed[128 + 5 * info->block_bytes + 77] ^= std::byte{1};
  packed[128 + 7 * info->block_bytes + 77] ^= std::byte{1};
  values back(src.size());
  for (const unsigned threads : {1U, 3U}) {
    const auto ctx = tersor::context::create(threads);
    const auto unpacked = tersor::unpack_into(*ctx, packed, bytes_of(back));
    ASSERT_FALSE(unpacked);
    EXPECT_EQ(unpacked.error().code, errc::digest_mismatch);
    EXPECT_EQ(unpacked.error().chunk, 5U);
  }
}

INSTANTIATE_TEST_SUITE_P(packed, every_matrix_dtype, testing::Values(dtype::bf16, dtype::f16),
                         [](const auto& type) { return std::string(tersor::to_string(type.param)); });

TEST(packed_matrix, refuses_bad_arguments) {
  const values src(16 * 128);
  const auto code = [&](matrix_view view, const tersor::pack_options& options = {}) {
    if (view.data.empty()) view.data = bytes_of(src);
    const auto packed = tersor::pack(one_thread(), view, options);
    return packed ? errc::ok : packed.error().code;
  };
  EXPECT_EQ(code({.rows = 16, .cols = 128}), errc::ok);
  EXPECT_EQ(code({.rows = 0, .cols = 128}), errc::invalid_argument);
  EXPECT_EQ(code({.rows = 16, .cols = 127}), errc::invalid_argument);
  EXPECT_EQ(code({.rows = 16, .cols = 129}), errc::invalid_argument);
  EXPECT_EQ(code({.rows = 16, .cols = 128, .stride = 127}), errc::invalid_argument);
  EXPECT_EQ(code({.rows = 16, .cols = 128, .stride = 129}), errc::invalid_argument);
  EXPECT_EQ(code({.rows = 8, .cols = 128, .stride = 256}), errc::ok);
  EXPECT_EQ(code({.type = dtype::f32, .rows = 16, .cols = 64}), errc::unsupported);
  EXPECT_EQ(code({.rows = std::uint64_t{1} << 40, .cols = std::uint64_t{1} << 40}), errc::size_overflow);
  for (const std::uint32_t inline_escapes : {4U, 41U, 1032U, 0x80000000U})
    EXPECT_EQ(code({.rows = 16, .cols = 128}, {.inline_escapes = inline_escapes}), errc::invalid_argument);
  EXPECT_EQ(tersor::pack_bound(dtype::f32, 16, 128), 0U);
  EXPECT_EQ(tersor::pack_bound(dtype::bf16, 0, 128), 0U);
  EXPECT_EQ(tersor::pack_bound(dtype::bf16, 16, 128, {.inline_escapes = 9}), 0U);
  EXPECT_EQ(tersor::pack_bound(dtype::bf16, ~std::uint64_t{0}, ~std::uint64_t{0}), 0U);
}

TEST(packed_matrix, names_what_it_cannot_read) {
  namespace detail = tersor::codec_detail;
  const values src(16 * 128);
  const auto packed = pack_or_fail({.rows = 16, .cols = 128, .data = bytes_of(src)});
  const auto code_with = [&](std::size_t byte, std::uint8_t value) {
    auto damaged = packed;
    damaged[byte] = static_cast<std::byte>(value);
    auto* header = reinterpret_cast<std::uint8_t*>(damaged.data());
    auto words = detail::load_matrix_words(header);
    detail::seal_matrix(words, header);
    const auto info = tersor::inspect_packed(damaged);
    return info ? errc::ok : info.error().code;
  };
  EXPECT_EQ(code_with(0, 'X'), errc::bad_magic);
  EXPECT_EQ(code_with(4, 2), errc::unsupported_version);
  EXPECT_EQ(code_with(5, 9), errc::unsupported);
  EXPECT_EQ(code_with(6, 3), errc::unsupported);
  EXPECT_EQ(code_with(7, 1), errc::malformed);
  EXPECT_EQ(code_with(127, 1), errc::malformed);
  EXPECT_EQ(code_with(36, 60), errc::malformed);
  EXPECT_EQ(tersor::inspect_packed(std::span(packed).first(127)).error().code, errc::truncated);
  EXPECT_EQ(tersor::parse_matrix_layout("packed"), tersor::matrix_layout::packed);
  EXPECT_EQ(tersor::parse_matrix_layout("tcatbe"), tersor::matrix_layout::tcatbe);
  EXPECT_FALSE(tersor::parse_matrix_layout("Packed"));
}

/// The definition of the layout, value by value, against what packing wrote.
TEST(packed_matrix, puts_every_value_where_the_layout_says) {
  namespace detail = tersor::codec_detail;
  const values src = make(content::trained, dtype::bf16, 16 * 128);
  const auto packed = pack_or_fail({.rows = 16, .cols = 128, .data = bytes_of(src)});
  const auto* block = reinterpret_cast<const std::uint8_t*>(packed.data()) + 128;
  const std::uint8_t* book = block + 2816;
  for (std::uint32_t row = 0; row < 16; ++row) {
    for (std::uint32_t col = 0; col < 128; ++col) {
      const detail::packed_place p = detail::place_in_block(row, col);
      const std::uint32_t position = detail::position_of(p);
      const std::uint32_t v = src[row * 128 + col];
      ASSERT_EQ(block[position], (v >> 8 & 0x80) | (v & 0x7f));
      const std::uint32_t low_bit = 4 * p.value + 2 * (p.step % 2);
      const std::uint32_t low = block[2048 + p.lane * 16 + p.step / 2 * 4 + low_bit / 8] >> low_bit % 8 & 3;
      constexpr std::array<std::uint32_t, 4> kHighBits = {2, 3, 1, 0};
      const std::uint32_t high_bit = 4 * p.value + kHighBits[p.step % 4];
      const std::uint32_t high = block[2560 + p.lane * 8 + p.step / 4 * 4 + high_bit / 8] >> high_bit % 8 & 1;
      const std::uint32_t symbol = v >> 7 & 0xff;
      const auto* found = std::find(book, book + 8, symbol);
      ASSERT_EQ(low | high << 2, found == book + 8 ? 0 : static_cast<std::uint32_t>(found - book));
    }
  }
}

}  // namespace
