// NEON: the `rank` codec. Each level is a stream of bytes, one per value that reaches it: decoding expands
// the stream of the next level into the places that continue, encoding compresses them out, sixteen or eight
// values a step.
#pragma once

#include <algorithm>

#include <arm_neon.h>

#include "cpu/neon_codes.hpp"

namespace {
namespace neon {

constexpr std::uint32_t kGoOn = 3;  ///< the code of levels 1 to 3 that continues
constexpr std::uint32_t kLevel4First = 9;
constexpr std::uint32_t kLevel4Escape = 7;
/// A stream of one byte a value; vectors may run past its end.
using byte_stream = std::array<std::uint8_t, kTileValues + 16>;

/// Takes `n` two-bit codes from bit `at` of a tail apart; returns how many continue.
inline std::uint32_t read_codes(const std::uint8_t* tail, std::uint32_t at, std::uint32_t n,
                                byte_stream& codes) noexcept {
  std::uint32_t n_on = 0;
  for (std::uint32_t i = 0; i < n; i += 16) {
    const std::uint32_t bit = at + 2 * i;
    auto fields = static_cast<std::uint32_t>(load_le<std::uint64_t>(tail + (bit >> 3)) >> (bit & 7));
    if (n - i < 16) fields &= (1u << (2 * (n - i))) - 1;
    n_on += static_cast<std::uint32_t>(std::popcount(fields & (fields >> 1) & 0x55555555u));
    vst1q_u8(&codes[i], unpack_fields(fields));
  }
  return n_on;
}

/// Symbols of sixteen codes: from `entries`, or, where a code continues, the next of `deeper`, which moves
/// on.
inline uint8x16_t expand(uint8x16_t codes, uint8x16_t entries, const std::uint8_t*& deeper) noexcept {
  const uint8x16_t zero = vdupq_n_u8(0);
  const uint8x16_t goes_on = vceqq_u8(codes, vdupq_n_u8(kGoOn));
  // Counts of continuing codes up to and with each place.
  uint8x16_t rank = vshrq_n_u8(goes_on, 7);
  rank = vaddq_u8(rank, vextq_u8(zero, rank, 15));
  rank = vaddq_u8(rank, vextq_u8(zero, rank, 14));
  rank = vaddq_u8(rank, vextq_u8(zero, rank, 12));
  rank = vaddq_u8(rank, vextq_u8(zero, rank, 8));
  const uint8x16_t next = vqtbl1q_u8(vld1q_u8(deeper), vsubq_u8(rank, vdupq_n_u8(1)));
  deeper += vgetq_lane_u8(rank, 15);
  return vbslq_u8(goes_on, next, vqtbl1q_u8(entries, codes));
}

inline void expand_stream(const byte_stream& codes, std::uint32_t n, uint8x16_t entries,
                          const byte_stream& deeper, byte_stream& symbols) noexcept {
  const std::uint8_t* next = deeper.data();
  for (std::uint32_t i = 0; i < n; i += 16) vst1q_u8(&symbols[i], expand(vld1q_u8(&codes[i]), entries, next));
}

/// Symbols of level 4 and of the escapes, in stream order.
inline bool read_deepest(const coding& c, const std::uint8_t* tail, std::uint32_t words, std::uint32_t at,
                         std::uint32_t n, bool escapes, byte_stream& symbols) noexcept {
  if (words * 32 - at < 3 * n) return false;
  std::array<std::uint16_t, kTileValues> places;
  std::uint32_t n_escapes = 0;
  for (std::uint32_t i = 0; i < n; ++i, at += 3) {
    const std::uint32_t code = (load_le<std::uint32_t>(tail + (at >> 3)) >> (at & 7)) & 7;
    // Where the code is an escape, the symbol comes later.
    symbols[i] = c.book.symbols[(kLevel4First + code) & 15];
    places[n_escapes] = static_cast<std::uint16_t>(i);
    n_escapes += code == kLevel4Escape ? 1 : 0;
  }
  return (n_escapes != 0) == escapes &&
         portable::take_escapes(c, tail, at, words * 32, places.data(), n_escapes, symbols.data());
}

bool decode_rank(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                 std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  byte_stream codes2;
  byte_stream codes3;
  byte_stream symbols2;
  byte_stream symbols3;
  byte_stream symbols4;
  std::uint32_t n2 = 0;
  for (unsigned l = 0; l < kLanes; ++l) {
    const auto fields = load_le<std::uint64_t>(code_plane + 8 * l);
    n2 += static_cast<std::uint32_t>(std::popcount(fields & (fields >> 1) & 0x5555555555555555u));
  }
  if (words * 32 < 2 * n2) return false;
  const std::uint32_t n3 = read_codes(tail, 0, n2, codes2);
  if (words * 32 < 2 * (n2 + n3)) return false;
  const std::uint32_t n4 = read_codes(tail, 2 * n2, n3, codes3);
  if (!read_deepest(c, tail, words, 2 * (n2 + n3), n4, escapes, symbols4)) return false;

  const uint8x16_t book = vld1q_u8(c.book.symbols.data());
  expand_stream(codes3, n3, vextq_u8(book, book, 6), symbols4, symbols3);
  expand_stream(codes2, n2, vextq_u8(book, book, 3), symbols3, symbols2);
  const std::uint8_t* next = symbols2.data();
  for (unsigned l = 0; l < kLanes; ++l) {
    for (unsigned half = 0; half < 2; ++half) {
      const uint8x16_t codes = unpack_fields(load_le<std::uint32_t>(code_plane + 8 * l + 4 * half));
      store_lane(symbols, l, half, expand(codes, book, next));
    }
  }
  return true;
}

/// For each mask of eight bytes, which of them to keep, first to last.
consteval std::array<std::array<std::uint8_t, 8>, 256> make_compress_table() {
  std::array<std::array<std::uint8_t, 8>, 256> table = {};
  for (unsigned mask = 0; mask < 256; ++mask) {
    unsigned n = 0;
    for (unsigned i = 0; i < 8; ++i) {
      if ((mask >> i) & 1) table[mask][n++] = static_cast<std::uint8_t>(i);
    }
  }
  return table;
}
constexpr auto kCompress = make_compress_table();

/// Appends the bytes that `keep` marks with 0xff to a stream.
inline void compress(uint8x16_t bytes, uint8x16_t keep, std::uint8_t*& end) noexcept {
  const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t marks = vandq_u8(keep, bit);
  const unsigned low = vaddv_u8(vget_low_u8(marks));
  const unsigned high = vaddv_u8(vget_high_u8(marks));
  vst1_u8(end, vtbl1_u8(vget_low_u8(bytes), vld1_u8(kCompress[low].data())));
  end += std::popcount(low);
  vst1_u8(end, vtbl1_u8(vget_high_u8(bytes), vld1_u8(kCompress[high].data())));
  end += std::popcount(high);
}

/// Codes sixteen places at the level whose first entry is `first`; those that continue go to `next`.
inline std::uint32_t code_places(uint8x16_t places, std::uint32_t first, std::uint8_t*& next) noexcept {
  const uint8x16_t past = vqsubq_u8(places, vdupq_n_u8(static_cast<std::uint8_t>(first)));
  const uint8x16_t three = vdupq_n_u8(kGoOn);
  compress(places, vcgeq_u8(past, three), next);
  return pack_fields(vminq_u8(past, three));
}

/// Ends a stream: what vectors read past its end is a place that no level continues.
inline std::uint32_t close_stream(byte_stream& places, std::uint8_t* end) noexcept {
  vst1q_u8(end, vdupq_n_u8(0));
  return static_cast<std::uint32_t>(end - places.data());
}

/// Appends a level's codes of `n` places; leaves those that continue in `next` and returns their number.
inline std::uint32_t write_level(portable::bit_writer& bits, const byte_stream& places, std::uint32_t n,
                                 std::uint32_t first, byte_stream& next) noexcept {
  std::uint8_t* end = next.data();
  for (std::uint32_t i = 0; i < n; i += 16) {
    // Places past the end are 0, whose code is 0.
    bits.put(code_places(vld1q_u8(&places[i]), first, end), 2 * std::min(n - i, 16u));
  }
  return close_stream(next, end);
}

coded_tile encode_rank(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                       std::uint8_t* tail) noexcept {
  const place_table table(c);
  byte_stream places2;
  byte_stream places3;
  byte_stream places4;
  std::uint8_t* end = places2.data();
  for (unsigned l = 0; l < kLanes; ++l) {
    for (unsigned half = 0; half < 2; ++half) {
      const uint8x16_t places = table.find(load_lane(symbols, l, half));
      store_le<std::uint32_t>(code_plane + 8 * l + 4 * half, code_places(places, 0, end));
    }
  }
  portable::bit_writer bits(tail);
  const std::uint32_t n2 = close_stream(places2, end);
  const std::uint32_t n3 = write_level(bits, places2, n2, 3, places3);
  const std::uint32_t n4 = write_level(bits, places3, n3, 6, places4);
  std::uint32_t n_escapes = 0;
  for (std::uint32_t i = 0; i < n4; ++i) {
    const std::uint32_t place = places4[i];
    bits.put(std::min(place - kLevel4First, kLevel4Escape), 3);
    n_escapes += place == kNoPlace ? 1 : 0;
  }
  bits.align(8);
  portable::put_escapes(bits, c, symbols, n_escapes);
  bits.align(32);
  const std::uint32_t words = bits.n_bits() / 32;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = n_escapes != 0};
}

}  // namespace neon
}  // namespace
