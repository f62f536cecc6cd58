// The tcatbe layout on the CPU: exact round trips of any content and shape, and nothing damaged goes
// unnoticed.
#include "codec/tcatbe.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace {

using namespace tersor::codec_detail;
using tersor::errc;
using tersor::matrix_info;
using bytes = std::vector<std::uint8_t>;
using values = std::vector<std::uint16_t>;
using geometry = tcatbe_geometry;

tersor::core::thread_pool& pool() {
  static tersor::core::thread_pool two(2);
  return two;
}

/// A matrix in rows as the caller's memory holds it.
struct source {
  std::uint64_t rows, cols;
  bool by_rows = true;
  std::uint64_t gap = 0;  ///< values between two lines
  std::size_t skew = 0;   ///< bytes before the first value

  [[nodiscard]] std::uint64_t stride() const { return (by_rows ? cols : rows) + gap; }
  [[nodiscard]] std::size_t n_bytes() const {
    const std::uint64_t lines = by_rows ? rows : cols, length = by_rows ? cols : rows;
    return skew + 2 * ((lines - 1) * stride() + length);
  }
  [[nodiscard]] std::size_t at(std::uint64_t row, std::uint64_t col) const {
    return skew + 2 * (by_rows ? row * stride() + col : col * stride() + row);
  }
  [[nodiscard]] bytes lay_out(const values& v) const {
    bytes memory(n_bytes(), 0xa5);
    for (std::uint64_t r = 0; r < rows; ++r) {
      for (std::uint64_t c = 0; c < cols; ++c)
        tersor::core::store_le(memory.data() + at(r, c), v[r * cols + c]);
    }
    return memory;
  }
  template <class Byte>
  [[nodiscard]] matrix_place<Byte> place(Byte* memory) const {
    return {.data = memory + skew, .rows = rows, .cols = cols, .by_rows = by_rows, .stride = stride()};
  }
};

bytes pack(const values& v, const source& s) {
  const bytes memory = s.lay_out(v);
  bytes packed(tcatbe_bound(s.rows, s.cols));
  const auto size = tcatbe_pack(pool(), s.place(memory.data()), packed);
  EXPECT_TRUE(size) << size.error().describe();
  packed.resize(size.value_or(0));
  return packed;
}

/// What the common part of the header says.
tersor::result<matrix_info> check(const bytes& packed) {
  if (packed.size() < geometry::kHeaderBytes) return tersor::fail(errc::truncated, "no header");
  const matrix_words w = load_matrix_words(packed.data());
  if (w[kWordMagic] != first_matrix_word(tersor::matrix_layout::tcatbe, tersor::dtype::bf16))
    return tersor::fail(errc::bad_magic, "magic");
  if (w[kWordHeaderDigest] != matrix_header_digest(w)) return tersor::fail(errc::digest_mismatch, "header");
  matrix_info info{.layout = tersor::matrix_layout::tcatbe,
                   .rows = w[kWordRows],
                   .cols = w[kWordCols],
                   .n_bytes = w[kWordBytes],
                   .n_overflow = w[kWordOverflowCount],
                   .blocks_at = w[kWordBlocksAt],
                   .overflow_at = w[kWordOverflowAt],
                   .digests_at = w[kWordDigestsAt]};
  TERSOR_CHECK(tcatbe_check(w, info));
  return info;
}

tersor::status unpack(const bytes& packed, const source& to, bytes& memory) {
  TERSOR_TRY(const matrix_info info, check(packed));
  if (info.rows != to.rows || info.cols != to.cols) return tersor::fail(errc::mismatch, "shape");
  return tcatbe_unpack(pool(), info, packed, to.place(memory.data()));
}

void round_trip(const values& v, const source& from, const source& to) {
  SCOPED_TRACE(std::to_string(from.rows) + " x " + std::to_string(from.cols));
  const bytes packed = pack(v, from);
  ASSERT_EQ(packed.size() % geometry::kSectionAlignment, 0u);
  bytes memory(to.n_bytes(), 0xa5);
  const auto done = unpack(packed, to, memory);
  ASSERT_TRUE(done) << done.error().describe();
  EXPECT_TRUE(memory == to.lay_out(v));
}
void round_trip(const values& v, std::uint64_t rows, std::uint64_t cols) {
  const source s{.rows = rows, .cols = cols};
  round_trip(v, s, s);
}

values gaussian(std::size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  values v(n);
  for (auto& x : v) x = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(rng)) >> 16);
  return v;
}
values random_bits(std::size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  values v(n);
  for (auto& x : v) x = static_cast<std::uint16_t>(rng());
  return v;
}

TEST(tcatbe, places_cover_a_strip) {
  std::vector<int> seen(geometry::kSmallTiles * 64);
  for (std::uint32_t row = 0; row < geometry::kStripRows; ++row) {
    for (std::uint32_t col = 0; col < geometry::kSide; ++col) {
      const tcatbe_place p = tcatbe_place_of(row, col);
      ASSERT_LT(p.tile, geometry::kSmallTiles);
      ASSERT_LT(p.word, 2u);
      ASSERT_LT(p.bit, 32u);
      EXPECT_EQ(tcatbe_tile_row(p.tile), row / 8 * 8);
      EXPECT_EQ(tcatbe_tile_col(p.tile), col / 8 * 8);
      // The fragment of mma.m16n8k16: register r of step q, lane, half.
      const std::uint32_t q = p.tile / 4, r = p.tile % 4, lane = 16 * p.word + p.bit % 16, half = p.bit / 16;
      EXPECT_EQ(row, lane / 4 + 8 * (r % 2));
      EXPECT_EQ(col, 16 * q + 8 * (r / 2) + 2 * (lane % 4) + half);
      ++seen[p.tile * 64 + p.word * 32 + p.bit];
    }
  }
  for (const int n : seen) EXPECT_EQ(n, 1);
}

TEST(tcatbe, window_is_the_best) {
  std::array<std::uint64_t, 256> counts = {};
  EXPECT_EQ(best_tcatbe_window(counts), 0u);
  counts[255] = 5;
  EXPECT_EQ(best_tcatbe_window(counts), 249u);
  counts[0] = 5;
  EXPECT_EQ(best_tcatbe_window(counts), 0u);
  counts[100] = counts[106] = 3;
  EXPECT_EQ(best_tcatbe_window(counts), 100u);
  counts[107] = 4;
  EXPECT_EQ(best_tcatbe_window(counts), 101u);
}

TEST(tcatbe, round_trips_every_small_shape) {
  const values v = gaussian(130 * 130, 1);
  for (const std::uint64_t rows : std::initializer_list<std::uint64_t>{1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64,
                                                                       65, 100, 127, 128, 129, 130}) {
    for (const std::uint64_t cols :
         std::initializer_list<std::uint64_t>{1, 3, 8, 15, 16, 33, 63, 64, 65, 96, 127, 128, 129, 130})
      round_trip(values(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(rows * cols)), rows, cols);
  }
}

TEST(tcatbe, round_trips_any_content) {
  constexpr std::uint64_t kRows = 256, kCols = 256, kN = kRows * kCols;
  values all(kN);
  for (std::size_t i = 0; i < kN; ++i) all[i] = static_cast<std::uint16_t>(i);
  round_trip(all, kRows, kCols);
  round_trip(random_bits(kN, 2), kRows, kCols);
  // +0, -0, smallest subnormal, 1, largest, infinities, NaNs
  for (const std::uint16_t x : std::initializer_list<std::uint16_t>{0x0000, 0x8000, 0x0001, 0x3f80, 0x7f7f,
                                                                    0x7f80, 0xff80, 0x7fc0, 0xffff, 0x7f81})
    round_trip(values(kN, x), kRows, kCols);
  values mixed = gaussian(kN, 3);
  for (std::size_t i = 0; i < kN; i += 5) mixed[i] = static_cast<std::uint16_t>(i % 2 == 0 ? 0 : 0x7f80);
  round_trip(mixed, kRows, kCols);
  // Tiles of escapes only beside tiles without any.
  values halves(kN, 0x3f80);
  std::fill(halves.begin() + kN / 2 + 64, halves.end(), std::uint16_t{0x0040});
  round_trip(halves, kRows, kCols);
}

TEST(tcatbe, takes_any_order_and_stride) {
  const std::uint64_t rows = 90, cols = 201;
  const values v = gaussian(rows * cols, 4);
  const source dense{.rows = rows, .cols = cols};
  const bytes expected = pack(v, dense);
  for (const bool by_rows : {true, false}) {
    for (const std::uint64_t gap : {0u, 1u, 37u}) {
      for (const std::size_t skew : {0u, 1u}) {
        const source s{.rows = rows, .cols = cols, .by_rows = by_rows, .gap = gap, .skew = skew};
        EXPECT_TRUE(pack(v, s) == expected);
        round_trip(v, dense, s);
      }
    }
  }
}

TEST(tcatbe, size_is_as_documented) {
  const std::uint64_t rows = 512, cols = 1024;
  const values v = gaussian(rows * cols, 5);
  const bytes packed = pack(v, {.rows = rows, .cols = cols});
  const auto info = check(packed);
  ASSERT_TRUE(info);
  std::array<std::uint64_t, 256> counts = {};
  for (const auto x : v) ++counts[x >> 7 & 0xff];
  const std::uint32_t first = best_tcatbe_window(counts);
  EXPECT_EQ(info->first_symbol, first);
  std::uint64_t coded = 0;
  for (std::uint32_t e = first; e < first + 7; ++e) coded += counts[e];
  EXPECT_EQ(info->n_overflow, rows * cols - coded);
  EXPECT_LT(info->bits_per_weight(), 11.5);
  EXPECT_GT(info->bits_per_weight(), 11.0);
}

TEST(tcatbe, refuses_a_small_destination) {
  const source s{.rows = 70, .cols = 70};
  const values v = gaussian(70 * 70, 6);
  const bytes packed = pack(v, s), memory = s.lay_out(v);
  for (const std::size_t size : {std::size_t{0}, std::size_t{128}, packed.size() - 1}) {
    bytes small(size);
    const auto done = tcatbe_pack(pool(), s.place(memory.data()), small);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, errc::destination_too_small);
  }
  bytes exact(packed.size());
  EXPECT_TRUE(tcatbe_pack(pool(), s.place(memory.data()), exact));
  EXPECT_TRUE(exact == packed);
}

TEST(tcatbe, bound_holds_for_the_worst_content) {
  // One coded value a tile, all others escapes.
  const std::uint64_t rows = 128, cols = 192;
  values v(rows * cols);
  std::mt19937 rng(7);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<std::uint16_t>((i * 8 % 256) << 7 | (rng() & 0x7f));
  const source s{.rows = rows, .cols = cols};
  EXPECT_LE(pack(v, s).size(), tcatbe_bound(rows, cols));
  round_trip(v, rows, cols);
  EXPECT_EQ(tcatbe_bound(~0ull, ~0ull), 0u);
}

TEST(tcatbe, notices_every_changed_bit) {
  const std::uint64_t rows = 20, cols = 70;
  const source s{.rows = rows, .cols = cols};
  const bytes packed = pack(gaussian(rows * cols, 8), s);
  bytes memory(s.n_bytes());
  ASSERT_TRUE(unpack(packed, s, memory));
  std::size_t unnoticed = 0;
  for (std::size_t bit = 0; bit < packed.size() * 8; ++bit) {
    bytes damaged = packed;
    damaged[bit / 8] = static_cast<std::uint8_t>(damaged[bit / 8] ^ (1u << bit % 8));
    if (unpack(damaged, s, memory)) ++unnoticed;
  }
  EXPECT_EQ(unnoticed, 0u);
}

TEST(tcatbe, notices_every_truncation) {
  const source s{.rows = 20, .cols = 70};
  const bytes packed = pack(gaussian(20 * 70, 9), s);
  bytes memory(s.n_bytes());
  for (std::size_t size = 0; size < packed.size(); size += 7) {
    const bytes part(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size));
    const auto done = unpack(part, s, memory);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, errc::truncated);
  }
}

TEST(tcatbe, survives_forged_headers) {
  // Words that lie, under a digest that agrees with them.
  const source s{.rows = 130, .cols = 70};
  const bytes packed = pack(gaussian(130 * 70, 10), s);
  bytes memory(s.n_bytes());
  std::mt19937_64 rng(11);
  for (std::size_t word = 0; word < kMatrixHeaderWords; ++word) {
    if (word == kWordHeaderDigest) continue;
    for (int i = 0; i < 200; ++i) {
      bytes forged = packed;
      matrix_words w = load_matrix_words(forged.data());
      const std::uint64_t before = w[word];
      w[word] = i < 64 ? w[word] ^ 1ull << i : rng() >> (i % 64);
      if (w[word] == before) continue;
      seal_matrix(w, forged.data());
      EXPECT_FALSE(unpack(forged, s, memory)) << word;
    }
  }
}

}  // namespace
