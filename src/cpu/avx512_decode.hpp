// Code plane and tail to symbols. Part of avx512.cpp only.
//
// Levels are decoded from the last one up: the symbols of level i + 1 are expanded into the gaps that level i
// leaves, and at level 1 the tile is complete.
#pragma once

#include "cpu/avx512_vec.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// How far ahead of the tile at work code plane and tails are fetched, in bytes.
constexpr std::uintptr_t kCodesAhead = 1536;
constexpr std::uintptr_t kTailAhead = 512;

/// One level's codebook entries as a table that repeats, so that garbage above a code in its byte does no
/// harm. The last entry of a period stands for "continue": any symbol that the others are not.
struct level_table {
  vec symbols;
  vec go_on;
};

TERSOR_VEC level_table level_table2(const coding& c, unsigned first) noexcept {
  std::uint32_t entries;
  memcpy(&entries, c.book.symbols.data() + first, 4);
  return {_mm512_set1_epi32(static_cast<int>(entries)), splat(c.book.symbols[first + 3])};
}

TERSOR_VEC level_table level_table3(const coding& c) noexcept {
  std::uint64_t entries = 0;
  memcpy(&entries, c.book.symbols.data() + 9, 7);
  entries |= static_cast<std::uint64_t>(c.book.symbols[0]) << 56;
  return {_mm512_set1_epi64(static_cast<long long>(entries)), splat(c.book.symbols[0])};
}

/// Symbols of one level in lane order, and where deeper ones are missing. Kept for a tile at most.
struct level_symbols {
  alignas(64) std::array<std::uint8_t, kTileValues + kVec> bytes;
  std::array<std::uint64_t, kTileValues / kVec> gaps;
  std::uint32_t n_gaps = 0;

  /// Takes over the 64 values (fewer at the end) at `at` of `n`.
  TERSOR_VEC void take(vec codes, const level_table& table, std::uint32_t at, std::uint32_t n) noexcept {
    const vec v = _mm512_permutexvar_epi8(codes, table.symbols);
    const std::uint64_t mask = _mm512_cmpeq_epi8_mask(v, table.go_on) & low_mask(n - at);
    store(bytes.data() + at, v);
    gaps[at / kVec] = mask;
    n_gaps += count_bits(mask);
  }
  /// Fills the gaps of the `n` values from `deeper`.
  TERSOR_VEC void fill(std::uint32_t n, const std::uint8_t* deeper) noexcept {
    for (std::uint32_t at = 0; at < n; at += kVec) {
      const std::uint64_t mask = gaps[at / kVec];
      store(bytes.data() + at, _mm512_mask_expand_epi8(load(bytes.data() + at), mask, load(deeper)));
      deeper += count_bits(mask);
    }
  }
};

constexpr bytes64 kSpread2 = make_bytes([](unsigned i) { return 16 * ((i >> 3) & 3) + 2 * (i & 7); });

/// 16 bytes of 2-bit codes -> 64 bytes; bits 2..7 are not cleared.
TERSOR_VEC vec spread2(const std::uint8_t* p) noexcept {
  long long low;
  long long high;
  memcpy(&low, p, 8);
  memcpy(&high, p + 8, 8);
  const vec words = _mm512_mask_set1_epi64(_mm512_set1_epi64(low), 0xf0, high);
  return _mm512_multishift_epi64_epi8(load(kSpread2.data()), words);
}

constexpr bytes64 kWindow2 = make_bytes([](unsigned i) { return 2 * (i >> 3) + (i & 7); });
constexpr bytes64 kWindow3 = make_bytes([](unsigned i) { return 3 * (i >> 3) + (i & 7); });
constexpr bytes64 kShift3 = make_bytes([](unsigned i) { return 3 * (i & 7); });

/// 64 codes from any bit on, eight a 64-bit window. Reads 32 bytes.
TERSOR_VEC vec spread_at(const std::uint8_t* tail, std::uint32_t bit, const bytes64& window,
                         const bytes64& shift) noexcept {
  const vec in = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tail + bit / 8)));
  const vec shifts = _mm512_add_epi8(load(shift.data()), splat(bit % 8));
  return _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(load(window.data()), in));
}

/// How many of a tile's 1,024 2-bit codes are 3.
TERSOR_VEC std::uint32_t count_threes(const std::uint8_t* code_plane) noexcept {
  const vec m33 = splat(0x33);
  const auto threes = [&](unsigned i) __attribute__((always_inline)) {
    const vec v = load(code_plane + kVec * i);
    return _mm512_ternarylogic_epi32(v, _mm512_srli_epi16(v, 1), splat(0x55), 0x80);
  };
  const vec most = _mm512_add_epi8(_mm512_add_epi8(threes(0), threes(1)), threes(2));
  const vec last = threes(3);
  vec sum = _mm512_add_epi8(_mm512_and_si512(most, m33), _mm512_and_si512(_mm512_srli_epi16(most, 2), m33));
  sum = _mm512_add_epi8(sum, _mm512_and_si512(last, m33));
  sum = _mm512_add_epi8(sum, _mm512_and_si512(_mm512_srli_epi16(last, 2), m33));
  const vec m0f = splat(0x0f);
  sum = _mm512_add_epi8(_mm512_and_si512(sum, m0f), _mm512_and_si512(_mm512_srli_epi16(sum, 4), m0f));
  return static_cast<std::uint32_t>(_mm512_reduce_add_epi64(_mm512_sad_epu8(sum, _mm512_setzero_si512())));
}

/// True if bits [from, to) of `tail` are zero, at most 32 of them.
TERSOR_VEC bool are_zero(const std::uint8_t* tail, std::uint32_t from, std::uint32_t to) noexcept {
  std::uint64_t word;
  memcpy(&word, tail + from / 8, 8);
  return _bzhi_u64(word >> (from % 8), to - from) == 0;
}

/// The `n` escape symbols at `p` fit the symbol width. Reads a vector past them.
TERSOR_VEC bool symbols_fit(const std::uint8_t* p, std::uint32_t n, unsigned symbol_bits) noexcept {
  std::uint64_t bad = 0;
  const vec high = splat(0xff00u >> (8 - symbol_bits));
  for (std::uint32_t at = 0; at < n; at += kVec)
    bad |= _mm512_test_epi8_mask(load(p + at), high) & low_mask(n - at);
  return bad == 0;
}

/// Checks the end of a tail whose codes take `bits` bits and which has `n` escapes.
TERSOR_VEC bool ends_well(const coding& c, const std::uint8_t* tail, std::uint32_t words, std::uint32_t bits,
                          std::uint32_t n_escapes) noexcept {
  const std::uint32_t first_escape = (bits + 7) / 8 * 8;
  const std::uint32_t end = first_escape + 8 * n_escapes;
  if (end > 32 * words || 32 * words - end >= 32) return false;
  return are_zero(tail, bits, first_escape) && are_zero(tail, end, 32 * words) &&
         symbols_fit(tail + first_escape / 8, n_escapes, c.plan.symbol_bits);
}

constexpr bytes64 kPlaces = make_bytes([](unsigned i) { return i; });

/// Levels 3 and 4 where at most 64 values reach level 3: they stay in registers. `bit` = where level 3
/// begins.
TERSOR_VEC bool fill_few(const coding& c, const std::uint8_t* tail, std::uint32_t words, bool escapes,
                         std::uint32_t bit, std::uint32_t n2, level_symbols& level2) noexcept {
  const std::uint32_t n3 = level2.n_gaps;
  const level_table table3 = level_table2(c, 6);
  vec level3 = _mm512_permutexvar_epi8(spread_at(tail, bit, kWindow2, kShift2), table3.symbols);
  const std::uint64_t gaps3 = _mm512_cmpeq_epi8_mask(level3, table3.go_on) & low_mask(n3);

  const std::uint32_t n4 = count_bits(gaps3);
  const std::uint32_t bit4 = bit + 2 * n3;
  const std::uint32_t end = bit4 + 3 * n4;
  if (end > 32 * words) return false;
  const level_table table4 = level_table3(c);
  vec level4 = _mm512_permutexvar_epi8(spread_at(tail, bit4, kWindow3, kShift3), table4.symbols);
  const std::uint64_t gaps4 = _mm512_cmpeq_epi8_mask(level4, table4.go_on) & low_mask(n4);

  if ((gaps4 != 0) != escapes || !ends_well(c, tail, words, end, count_bits(gaps4))) return false;
  if (escapes) level4 = _mm512_mask_expand_epi8(level4, gaps4, load(tail + (end + 7) / 8));
  level3 = _mm512_mask_expand_epi8(level3, gaps3, level4);
  std::uint32_t used = 0;
  for (std::uint32_t at = 0; at < n2; at += kVec) {
    const std::uint64_t mask = level2.gaps[at / kVec];
    const vec order = _mm512_add_epi8(load(kPlaces.data()), splat(used));
    const vec deeper = _mm512_permutexvar_epi8(order, level3);
    store(level2.bytes.data() + at, _mm512_mask_expand_epi8(load(level2.bytes.data() + at), mask, deeper));
    used += count_bits(mask);
  }
  return true;
}

/// The same for any number of values.
bool fill_many(const coding& c, const std::uint8_t* tail, std::uint32_t words, bool escapes,
               std::uint32_t bit, std::uint32_t n2, level_symbols& level2) noexcept {
  level_symbols level3;
  level_symbols level4;
  const std::uint32_t n3 = level2.n_gaps;
  const level_table table3 = level_table2(c, 6);
  for (std::uint32_t at = 0; at < n3; at += kVec) {
    level3.take(spread_at(tail, bit + 2 * at, kWindow2, kShift2), table3, at, n3);
  }
  const std::uint32_t n4 = level3.n_gaps;
  const std::uint32_t bit4 = bit + 2 * n3;
  const std::uint32_t end = bit4 + 3 * n4;
  if (end > 32 * words) return false;
  const level_table table4 = level_table3(c);
  for (std::uint32_t at = 0; at < n4; at += kVec) {
    level4.take(spread_at(tail, bit4 + 3 * at, kWindow3, kShift3), table4, at, n4);
  }
  if ((level4.n_gaps != 0) != escapes || !ends_well(c, tail, words, end, level4.n_gaps)) return false;
  if (escapes) level4.fill(n4, tail + (end + 7) / 8);
  level3.fill(n3, level4.bytes.data());
  level2.fill(n2, level3.bytes.data());
  return true;
}

/// Levels 2..4 of a rank tile: the symbols that level 1 lacks, in lane order; false if the tail is malformed.
TERSOR_VEC bool decode_deep(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                            std::uint32_t words, bool escapes, level_symbols& level2) noexcept {
  prefetch(tail, kTailAhead);
  prefetch(tail, kTailAhead + kVec);
  for (unsigned i = 0; i < kGroups; ++i) prefetch(code_plane + kVec * i, kCodesAhead);
  const std::uint32_t n2 = count_threes(code_plane);
  const std::uint32_t bits = 32 * words;
  if (2 * n2 > bits) return false;
  const level_table table2 = level_table2(c, 3);
  level2.n_gaps = 0;
  for (std::uint32_t at = 0; at < n2; at += kVec) level2.take(spread2(tail + at / 4), table2, at, n2);
  const std::uint32_t bit3 = 2 * n2;
  if (bit3 + 2 * level2.n_gaps > bits) return false;
  return level2.n_gaps <= kVec ? fill_few(c, tail, words, escapes, bit3, n2, level2)
                               : fill_many(c, tail, words, escapes, bit3, n2, level2);
}

/// Level 1 of a rank tile, completed with the symbols of the deeper levels.
TERSOR_VEC void decode_level1(const coding& c, const std::uint8_t* code_plane, const level_symbols& level2,
                              std::uint8_t* symbols) noexcept {
  const level_table table = level_table2(c, 0);
  const std::uint8_t* deeper = level2.bytes.data();
  for (unsigned g = 0; g < kGroups; ++g) {
    quad lanes;
    for (unsigned i = 0; i < 4; ++i) {
      const vec v = _mm512_permutexvar_epi8(spread2(code_plane + 64 * g + 16 * i), table.symbols);
      const std::uint64_t mask = _mm512_cmpeq_epi8_mask(v, table.go_on);
      lanes.v[i] = _mm512_mask_expand_epi8(v, mask, load(deeper));
      deeper += count_bits(mask);
    }
    const quad out = to_values(lanes);
    for (unsigned s = 0; s < kRows; ++s) store(symbols + 256 * s + 64 * g, out.v[s]);
  }
}

bool decode_rank(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                 std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  level_symbols level2;
  if (!decode_deep(c, code_plane, tail, words, escapes, level2)) return false;
  decode_level1(c, code_plane, level2, symbols);
  return true;
}

/// Fills the escapes of a top16 tile; `symbols` holds the rest. False if their number contradicts the tail.
bool fill_top16_escapes(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                        std::uint32_t words, std::uint8_t* symbols) noexcept {
  const std::uint8_t* from = tail;
  const std::uint8_t* end = tail + 4 * words;
  for (unsigned g = 0; g < kGroups; ++g) {
    const quad codes = unpack4(code_plane + 128 * g);
    quad gaps;
    quad known;
    for (unsigned s = 0; s < kRows; ++s) {
      gaps.v[s] = _mm512_and_si512(codes.v[s], splat(15));
      known.v[s] = load(symbols + 256 * s + 64 * g);
    }
    gaps = to_lanes(gaps);
    known = to_lanes(known);
    for (unsigned i = 0; i < 4; ++i) {
      const std::uint64_t mask = _mm512_cmpeq_epi8_mask(gaps.v[i], splat(15));
      if (end - from < static_cast<std::ptrdiff_t>(count_bits(mask))) return false;
      known.v[i] = _mm512_mask_expand_epi8(known.v[i], mask, load(from));
      from += count_bits(mask);
    }
    const quad out = to_values(known);
    for (unsigned s = 0; s < kRows; ++s) store(symbols + 256 * s + 64 * g, out.v[s]);
  }
  const auto n = static_cast<std::uint32_t>(from - tail);
  return n != 0 && ends_well(c, tail, words, 0, n);
}

bool decode_top16(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                  std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  const vec table =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(c.book.symbols.data())));
  vec fifteens = _mm512_setzero_si512();
  for (unsigned g = 0; g < kGroups; ++g) {
    const quad codes = unpack4(code_plane + 128 * g);
    for (unsigned s = 0; s < kRows; ++s) {
      store(symbols + 256 * s + 64 * g, _mm512_permutexvar_epi8(codes.v[s], table));
    }
    for (unsigned i = 0; i < 2; ++i) {
      const vec plane = load(code_plane + 128 * g + kVec * i);
      prefetch(code_plane + 128 * g + kVec * i, kCodesAhead);
      const vec twos = _mm512_and_si512(plane, _mm512_srli_epi16(plane, 1));
      const vec fours = _mm512_ternarylogic_epi32(twos, _mm512_srli_epi16(twos, 2), splat(0x11), 0x80);
      fifteens = _mm512_or_si512(fifteens, fours);
    }
  }
  if (escapes) return fill_top16_escapes(c, code_plane, tail, words, symbols);
  return words == 0 && _mm512_test_epi8_mask(fifteens, fifteens) == 0;
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
