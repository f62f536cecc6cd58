// AVX2: the `top16` codec. Two lanes' four-bit codes are one vector.
#pragma once

#include <immintrin.h>

#include "cpu/avx2_codes.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX2)
namespace {
namespace avx2 {

constexpr unsigned kCodeBytes16 = 512;  ///< of a tile's code plane

bool decode_top16(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                  std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  const __m256i book = _mm256_broadcastsi128_si256(load_half(c.book.symbols.data()));
  const __m256i nibble = _mm256_set1_epi8(0x0f);
  __m256i highest = _mm256_setzero_si256();
  for (unsigned l = 0; l < 32; l += 4) {
    prefetch(code_plane + 16 * l, kPrefetchTiles * kCodeBytes16);
    const __m256i lanes01 = load(code_plane + 16 * l);
    const __m256i lanes23 = load(code_plane + 16 * l + 32);
    const __m256i even = _mm256_permute2x128_si256(lanes01, lanes23, 0x20);
    const __m256i odd = _mm256_permute2x128_si256(lanes01, lanes23, 0x31);
    const __m256i even_low = _mm256_and_si256(even, nibble);
    const __m256i even_high = _mm256_and_si256(_mm256_srli_epi16(even, 4), nibble);
    const __m256i odd_low = _mm256_and_si256(odd, nibble);
    const __m256i odd_high = _mm256_and_si256(_mm256_srli_epi16(odd, 4), nibble);
    highest = _mm256_max_epu8(
        highest, _mm256_max_epu8(_mm256_max_epu8(even_low, even_high), _mm256_max_epu8(odd_low, odd_high)));
    const __m256i e0 = _mm256_shuffle_epi8(book, even_low);
    const __m256i e1 = _mm256_shuffle_epi8(book, even_high);
    const __m256i o0 = _mm256_shuffle_epi8(book, odd_low);
    const __m256i o1 = _mm256_shuffle_epi8(book, odd_high);
    store_lanes(symbols, l, 0, _mm256_unpacklo_epi8(e0, e1), _mm256_unpacklo_epi8(o0, o1));
    store_lanes(symbols, l, 2, _mm256_unpackhi_epi8(e0, e1), _mm256_unpackhi_epi8(o0, o1));
  }
  const bool found = _mm256_movemask_epi8(_mm256_cmpeq_epi8(highest, nibble)) != 0;
  if (found != escapes) return false;
  std::array<std::uint16_t, kTileValues> values;
  std::uint32_t n_escapes = 0;
  if (found) {
    portable::for_each_escape(
        code_plane, [&](std::uint32_t value) { values[n_escapes++] = static_cast<std::uint16_t>(value); });
  }
  return portable::take_escapes(c, tail, 0, words * 32, values.data(), n_escapes, symbols);
}

/// Returns whether a code is 15.
template <unsigned N>
inline bool pack_codes(const symbol_table& table, const std::uint8_t* symbols,
                       std::uint8_t* code_plane) noexcept {
  const __m256i by_pair = _mm256_set1_epi16(0x1001);
  const __m256i ones = _mm256_set1_epi8(-1);
  __m256i lowest = ones;
  for (unsigned l = 0; l < 32; l += 4) {
    prefetch(code_plane + 16 * l, kPrefetchTiles * kCodeBytes16);
    __m256i pairs[4];
    for (unsigned s = 0; s < 4; ++s) {
      const __m256i inverted = table.find<N>(load(symbols + 256 * s + 8 * l));
      lowest = _mm256_min_epu8(lowest, inverted);
      pairs[s] = _mm256_maddubs_epi16(inverted, by_pair);
    }
    // 32-bit pieces: sub-block 0 of two lanes, sub-block 1 of the same two lanes.
    const __m256i rows01 = _mm256_packus_epi16(pairs[0], pairs[1]);
    const __m256i rows23 = _mm256_packus_epi16(pairs[2], pairs[3]);
    const __m256 p = _mm256_castsi256_ps(rows01);
    const __m256 q = _mm256_castsi256_ps(rows23);
    const __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(p, q, 0x88));
    const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(p, q, 0xdd));
    store<false>(code_plane + 16 * l, _mm256_xor_si256(_mm256_permute2x128_si256(even, odd, 0x20), ones));
    store<false>(code_plane + 16 * l + 32,
                 _mm256_xor_si256(_mm256_permute2x128_si256(even, odd, 0x31), ones));
  }
  return _mm256_movemask_epi8(_mm256_cmpeq_epi8(lowest, _mm256_setzero_si256())) != 0;
}

coded_tile encode_top16(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                        std::uint8_t* tail) noexcept {
  // Codes inverted, so that what the table does not find gets code 15.
  const __m128i by_entry = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const symbol_table table(c, by_entry);
  bool found = false;
  with_table_size(table, [&](auto n) { found = pack_codes<n()>(table, symbols, code_plane); });
  std::uint32_t n_bytes = 0;
  if (found) {
    portable::for_each_escape(code_plane, [&](std::uint32_t value) { tail[n_bytes++] = symbols[value]; });
  }
  memset(tail + n_bytes, 0, 4);
  const std::uint32_t words = (n_bytes + 3) / 4;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = found};
}

}  // namespace avx2
}  // namespace
TERSOR_TARGET_END
