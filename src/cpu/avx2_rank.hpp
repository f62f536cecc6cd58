// AVX2: the `rank` codec. A lane's 32 two-bit codes of a level are one 64-bit word, so PDEP hands a lane its next codes
// and PEXT takes them out.
#pragma once

#include <immintrin.h>

#include "cpu/avx2_codes.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX2)
namespace {
namespace avx2 {

constexpr unsigned kLanes = 32;
constexpr std::uint64_t kLowBits = 0x5555555555555555u;
constexpr unsigned kLevel4First = 9;
constexpr unsigned kLevel4Escape = 7;

/// Bit 2 i is set where field i is 3.
inline std::uint64_t continuing(std::uint64_t fields) noexcept { return fields & (fields >> 1) & kLowBits; }

/// A bit string that is read in pieces of up to 64 bits.
class word_reader {
 public:
  word_reader(const std::uint8_t* tail, std::uint32_t n_bits) noexcept : tail_(tail), n_bits_(n_bits) {}
  [[nodiscard]] std::uint32_t at() const noexcept { return at_; }
  [[nodiscard]] bool has(std::uint32_t n_bits) const noexcept { return n_bits <= n_bits_ - at_; }
  /// The next 64 bits of which `width` count; `has(width)` must hold. What lies past the tail's end is read, not used.
  std::uint64_t take(std::uint32_t width) noexcept {
    const std::uint8_t* src = tail_ + (at_ >> 3);
    const std::uint32_t shift = at_ & 7;
    std::uint64_t bits = load_le<std::uint64_t>(src) >> shift;
    if (width > 56) bits |= (static_cast<std::uint64_t>(src[8]) << 1) << (63 - shift);
    at_ += width;
    return bits;
  }

 private:
  const std::uint8_t* tail_;
  std::uint32_t n_bits_;
  std::uint32_t at_ = 0;
};

/// Gives every continuing field of `open` its next two-bit code: `codes` gets the fields, zero elsewhere, and `next` the
/// fields that continue again. False if the tail is too short.
inline bool decode_level(word_reader& bits, const std::uint64_t* open, std::uint64_t* codes,
                         std::uint64_t* next) noexcept {
  for (unsigned l = 0; l < kLanes; ++l) {
    const std::uint64_t mask = open[l];
    const auto width = static_cast<std::uint32_t>(2 * std::popcount(mask));
    if (!bits.has(width)) return false;
    const std::uint64_t fields = _pdep_u64(bits.take(width), 3 * mask);
    codes[l] = fields;
    next[l] = continuing(fields);
  }
  return true;
}

/// What levels 1 to 3 say about the symbols of four lanes a step.
class rank_symbols {
 public:
  explicit rank_symbols(const coding& c) noexcept {
    // Index c1 | c2 << 2: entry c1, or 3 + c2 where c1 continues; none where both do.
    const __m128i entries = _mm_setr_epi8(0, 1, 2, 3, 0, 1, 2, 4, 0, 1, 2, 5, 0, 1, 2, -1);
    // Index c3 | 4 where level 3 has a code; none elsewhere and where it continues.
    const __m128i deep = _mm_setr_epi8(-1, -1, -1, -1, 6, 7, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i book = load_half(c.book.symbols.data());
    shallow_ = _mm256_broadcastsi128_si256(_mm_shuffle_epi8(book, entries));
    deep_ = _mm256_broadcastsi128_si256(_mm_shuffle_epi8(book, deep));
  }

  /// Lanes `lane` .. `lane + 3`: codes of levels 1, 2, 3 and the fields that reach level 3.
  void store_symbols(__m256i codes1, __m256i codes2, __m256i codes3, __m256i reach3, unsigned lane,
                     std::uint8_t* symbols) const noexcept {
    const __m256i pairs = _mm256_set1_epi8(0x33);
    // Nibbles c1 | c2 << 2 of the even fields, and of the odd ones.
    const __m256i even = _mm256_or_si256(_mm256_and_si256(codes1, pairs),
                                         _mm256_slli_epi64(_mm256_and_si256(codes2, pairs), 2));
    const __m256i odd = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi64(codes1, 2), pairs),
                                        _mm256_andnot_si256(pairs, codes2));
    const __m256i deep_even = _mm256_or_si256(
        _mm256_and_si256(codes3, pairs), _mm256_slli_epi64(_mm256_and_si256(reach3, _mm256_set1_epi8(0x11)), 2));
    const __m256i deep_odd = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi64(codes3, 2), pairs),
                                             _mm256_and_si256(reach3, _mm256_set1_epi8(0x44)));
    const __m256i f0 = low_nibbles(even, deep_even);
    const __m256i f1 = low_nibbles(odd, deep_odd);
    const __m256i f2 = low_nibbles(_mm256_srli_epi64(even, 4), _mm256_srli_epi64(deep_even, 4));
    const __m256i f3 = low_nibbles(_mm256_srli_epi64(odd, 4), _mm256_srli_epi64(deep_odd, 4));
    // Fields 4 i .. 4 i + 3 side by side: first lanes 0 and 2, then lanes 1 and 3.
    const __m256i f01_even = _mm256_unpacklo_epi8(f0, f1);
    const __m256i f01_odd = _mm256_unpackhi_epi8(f0, f1);
    const __m256i f23_even = _mm256_unpacklo_epi8(f2, f3);
    const __m256i f23_odd = _mm256_unpackhi_epi8(f2, f3);
    store_lanes(symbols, lane, 0, _mm256_unpacklo_epi16(f01_even, f23_even), _mm256_unpacklo_epi16(f01_odd, f23_odd));
    store_lanes(symbols, lane, 2, _mm256_unpackhi_epi16(f01_even, f23_even), _mm256_unpackhi_epi16(f01_odd, f23_odd));
  }

 private:
  [[nodiscard]] __m256i low_nibbles(__m256i index, __m256i deep_index) const noexcept {
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    return _mm256_or_si256(_mm256_shuffle_epi8(shallow_, _mm256_and_si256(index, nibble)),
                           _mm256_shuffle_epi8(deep_, _mm256_and_si256(deep_index, nibble)));
  }
  __m256i shallow_;
  __m256i deep_;
};

/// Calls `body(lane, field)` for each set bit 2 * field of `open`, in lane order. Lanes are listed first without a branch:
/// few lanes have such a value, and which ones nothing predicts.
template <class Body>
inline void for_each_open(const std::uint64_t* open, Body&& body) noexcept {
  std::array<std::uint8_t, kLanes + 1> lanes;
  unsigned n = 0;
  for (unsigned l = 0; l < kLanes; ++l) {
    lanes[n] = static_cast<std::uint8_t>(l);
    n += open[l] != 0 ? 1 : 0;
  }
  for (unsigned i = 0; i < n; ++i) {
    const unsigned l = lanes[i];
    for (std::uint64_t left = open[l]; left != 0; left &= left - 1) {
      body(kLanes * l + static_cast<unsigned>(std::countr_zero(left)) / 2);
    }
  }
}

/// Level 4 and the escapes.
inline bool decode_deepest(const coding& c, word_reader& bits, const std::uint8_t* tail, std::uint32_t n_bits,
                           const std::uint64_t* open, bool escapes, std::uint8_t* symbols) noexcept {
  std::uint32_t n_open = 0;
  for (unsigned l = 0; l < kLanes; ++l) n_open += static_cast<std::uint32_t>(std::popcount(open[l]));
  if (!bits.has(3 * n_open)) return false;
  std::array<std::uint16_t, kTileValues> places;
  std::uint32_t n_escapes = 0;
  for_each_open(open, [&](unsigned place) {
    const auto code = static_cast<std::uint32_t>(bits.take(3)) & 7;
    const auto at = static_cast<std::uint16_t>(value_order(place));
    if (code == kLevel4Escape) {
      places[n_escapes++] = at;
    } else {
      symbols[at] = c.book.symbols[kLevel4First + code];
    }
  });
  if ((n_escapes != 0) != escapes) return false;
  return take_escapes(c, tail, bits.at(), n_bits, places.data(), n_escapes, symbols);
}

bool decode_rank(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail, std::uint32_t words,
                 bool escapes, std::uint8_t* symbols) noexcept {
  alignas(32) std::array<std::uint64_t, kLanes> open1;
  alignas(32) std::array<std::uint64_t, kLanes> codes2;
  alignas(32) std::array<std::uint64_t, kLanes> open2;
  alignas(32) std::array<std::uint64_t, kLanes> codes3;
  alignas(32) std::array<std::uint64_t, kLanes> open3;
  word_reader bits(tail, words * 32);
  for (unsigned l = 0; l < kLanes; ++l) open1[l] = continuing(load_le<std::uint64_t>(code_plane + 8 * l));
  if (!decode_level(bits, open1.data(), codes2.data(), open2.data())) return false;
  if (!decode_level(bits, open2.data(), codes3.data(), open3.data())) return false;
  const rank_symbols tables(c);
  for (unsigned l = 0; l < kLanes; l += 4) {
    tables.store_symbols(load(code_plane + 8 * l), load(&codes2[l]), load(&codes3[l]), load(&open2[l]), l, symbols);
  }
  return decode_deepest(c, bits, tail, words * 32, open3.data(), escapes, symbols);
}

/// Appends up to 64 bits at a time to a bit string; may write 8 bytes past its end.
class word_writer {
 public:
  explicit word_writer(std::uint8_t* dst) noexcept : begin_(dst), dst_(dst) {}
  /// `bits` has nothing set above `width`.
  void put(std::uint64_t bits, std::uint32_t width) noexcept {
    if (width > 56) {
      append(bits & 0xffffffffu, 32);
      bits >>= 32;
      width -= 32;
    }
    append(bits, width);
  }
  [[nodiscard]] std::uint32_t n_bits() const noexcept {
    return static_cast<std::uint32_t>(dst_ - begin_) * 8 + n_pending_;
  }
  void align(std::uint32_t unit) noexcept { put(0, (unit - n_bits() % unit) % unit); }

 private:
  void append(std::uint64_t bits, std::uint32_t width) noexcept {
    pending_ |= bits << n_pending_;
    store_le<std::uint64_t>(dst_, pending_);
    n_pending_ += width;
    dst_ += n_pending_ >> 3;
    // A full word of 64 bits cannot be pending here: at most 7 were left, and 56 came.
    pending_ >>= n_pending_ & ~7u;
    n_pending_ &= 7;
  }
  std::uint8_t* begin_;
  std::uint8_t* dst_;
  std::uint64_t pending_ = 0;
  std::uint32_t n_pending_ = 0;
};

/// Two bits of each byte, starting at bit `Shift`, of the four sub-blocks of four lanes as one word per lane.
template <unsigned Shift>
inline __m256i pack_fields(const __m256i (&rows)[4]) noexcept {
  const __m256i three = _mm256_set1_epi8(3);
  const __m256i by_pair = _mm256_set1_epi16(0x0401);
  const __m256i by_quad = _mm256_set1_epi32(0x00100001);
  const __m256i by_quad_high = _mm256_set1_epi32(0x10000100);
  __m256i quads[4];
  for (unsigned s = 0; s < 4; ++s) {
    const __m256i fields = _mm256_and_si256(_mm256_srli_epi16(rows[s], Shift), three);
    quads[s] = _mm256_madd_epi16(_mm256_maddubs_epi16(fields, by_pair), s < 2 ? by_quad : by_quad_high);
  }
  // Each 32-bit half of a lane now holds sub-blocks 0, 2, 1, 3; the shuffle brings both halves of a sub-block together.
  const __m256i mixed = _mm256_or_si256(_mm256_or_si256(quads[0], quads[2]),
                                        _mm256_slli_epi32(_mm256_or_si256(quads[1], quads[3]), 16));
  const __m256i order = _mm256_setr_epi8(0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15,  //
                                         0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15);
  return _mm256_shuffle_epi8(mixed, order);
}

/// The codes of levels 1 to 3, one word a lane; fields of values that do not reach a level are anything but 3.
struct rank_codes {
  alignas(32) std::array<std::uint64_t, kLanes> level2;
  alignas(32) std::array<std::uint64_t, kLanes> level3;
};

template <unsigned N>
inline void code_symbols(const symbol_table& table, const std::uint8_t* symbols, std::uint8_t* code_plane,
                         rank_codes& codes) noexcept {
  const __m256i ones = _mm256_set1_epi8(-1);
  for (unsigned l = 0; l < kLanes; l += 4) {
    __m256i rows[4];
    for (unsigned s = 0; s < 4; ++s) rows[s] = table.find<N>(load(symbols + 256 * s + 8 * l));
    store<false>(code_plane + 8 * l, _mm256_xor_si256(pack_fields<0>(rows), ones));
    store<false>(&codes.level2[l], _mm256_xor_si256(pack_fields<2>(rows), ones));
    store<false>(&codes.level3[l], _mm256_xor_si256(pack_fields<4>(rows), ones));
  }
}

/// Appends the codes of the continuing values of every lane; `next` gets those that continue again.
inline void encode_level(word_writer& bits, const std::uint64_t* open, const std::uint64_t* codes,
                         std::uint64_t* next) noexcept {
  for (unsigned l = 0; l < kLanes; ++l) {
    const std::uint64_t mask = open[l];
    bits.put(_pext_u64(codes[l], 3 * mask), static_cast<std::uint32_t>(2 * std::popcount(mask)));
    next[l] = continuing(codes[l]);
  }
}

coded_tile encode_rank(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                       std::uint8_t* tail) noexcept {
  // Codes of entries 0..8 as c1 | c2 << 2 | c3 << 4, inverted, so that what the table does not find continues at every
  // level. Codes below the level that an entry ends at are 0.
  const __m128i by_entry = _mm_setr_epi8(0x3f, 0x3e, 0x3d, 0x3c, 0x38, 0x34, 0x30, 0x20, 0x10, 0, 0, 0, 0, 0, 0, 0);
  const symbol_table table(c, by_entry);
  rank_codes codes;
  with_table_size(table, [&](auto n) { code_symbols<n()>(table, symbols, code_plane, codes); });

  alignas(32) std::array<std::uint64_t, kLanes> open1;
  alignas(32) std::array<std::uint64_t, kLanes> open2;
  alignas(32) std::array<std::uint64_t, kLanes> open3;
  for (unsigned l = 0; l < kLanes; ++l) open1[l] = continuing(load_le<std::uint64_t>(code_plane + 8 * l));
  word_writer bits(tail);
  encode_level(bits, open1.data(), codes.level2.data(), open2.data());
  encode_level(bits, open2.data(), codes.level3.data(), open3.data());
  if (bits.n_bits() >= c.plan.raw_words() * 32) return {};

  std::array<std::uint8_t, kTileValues> escapes;
  std::uint32_t n_escapes = 0;
  for_each_open(open3.data(), [&](unsigned place) {
    const std::uint8_t symbol = symbols[value_order(place)];
    const std::uint32_t entry = c.place[symbol];
    if (entry == kNoPlace) escapes[n_escapes++] = symbol;
    bits.put(entry == kNoPlace ? kLevel4Escape : entry - kLevel4First, 3);
  });
  bits.align(8);
  if (bits.n_bits() + 8 * n_escapes > c.plan.raw_words() * 32) return {};
  for (std::uint32_t i = 0; i < n_escapes; ++i) bits.put(escapes[i], 8);
  bits.align(32);
  const std::uint32_t words = bits.n_bits() / 32;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = n_escapes != 0};
}

}  // namespace avx2
}  // namespace
TERSOR_TARGET_END
