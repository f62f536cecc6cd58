// AVX2: the `rank` codec. A lane's 32 two-bit codes of a level are one 64-bit word, so PDEP hands a lane its
// next codes and PEXT takes them out.
#pragma once

#include <immintrin.h>

#include "cpu/avx2_codes.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX2)
namespace {
namespace avx2 {

constexpr unsigned kLanes = 32;
constexpr unsigned kCodeBytes = 8 * kLanes;  ///< of a tile's code plane
constexpr std::uint32_t kLevel4First = 9;
constexpr std::uint32_t kLevel4Escape = 7;

/// One word a lane.
struct lane_words {
  alignas(32) std::uint64_t of[kLanes];
};

/// Bit 2 i is set where field i is 3.
inline __m256i continuing(__m256i fields) noexcept {
  return _mm256_and_si256(_mm256_and_si256(fields, _mm256_srli_epi64(fields, 1)), _mm256_set1_epi8(0x55));
}

inline std::uint32_t n_set(std::uint64_t mask) noexcept {
  return static_cast<std::uint32_t>(std::popcount(mask));
}

/// A bit string that is read in pieces of up to 64 bits.
class word_reader {
 public:
  word_reader(const std::uint8_t* tail, std::uint32_t n_bits) noexcept : tail_(tail), n_bits_(n_bits) {}
  [[nodiscard]] std::uint32_t at() const noexcept { return static_cast<std::uint32_t>(at_); }
  /// True unless more was taken than there is.
  [[nodiscard]] bool is_inside() const noexcept { return at_ <= n_bits_; }
  /// The next 57 bits or more.
  [[nodiscard]] std::uint64_t peek() const noexcept {
    return load_le<std::uint64_t>(tail_ + (at_ >> 3)) >> (at_ & 7);
  }
  /// The next 64 bits.
  [[nodiscard]] std::uint64_t peek_word() const noexcept {
    return peek() | ((static_cast<std::uint64_t>(tail_[(at_ >> 3) + 8]) << 1) << (63 - (at_ & 7)));
  }
  void skip(std::uint32_t n_bits) noexcept { at_ += n_bits; }

 private:
  const std::uint8_t* tail_;
  std::uint64_t n_bits_;
  std::uint64_t at_ = 0;
};

/// Gives every open field its next two-bit code; other fields become zero. `Group` lanes share a read if
/// their codes fit: choose it so that they usually do. False if the tail is too short, of which at most 40
/// bytes past its end were read.
template <unsigned Group>
inline bool decode_level(word_reader& bits, const lane_words& open, lane_words& codes) noexcept {
  for (unsigned l = 0; l < kLanes; l += Group) {
    std::uint32_t n = 0;
    for (unsigned i = 0; i < Group; ++i) n += n_set(open.of[l + i]);
    if (n <= 28) [[likely]] {
      std::uint64_t fields = bits.peek();
      for (unsigned i = 0; i < Group; ++i) {
        const std::uint64_t mask = open.of[l + i];
        codes.of[l + i] = _pdep_u64(fields, 3 * mask);
        fields >>= 2 * n_set(mask) & 63;
      }
      bits.skip(2 * n);
    } else {
      for (unsigned i = 0; i < Group; ++i) {
        const std::uint64_t mask = open.of[l + i];
        codes.of[l + i] = _pdep_u64(bits.peek_word(), 3 * mask);
        bits.skip(2 * n_set(mask));
      }
    }
    if (!bits.is_inside()) return false;
  }
  return true;
}

inline void mark_continuing(const lane_words& codes, lane_words& open) noexcept {
  for (unsigned l = 0; l < kLanes; l += 4) store<false>(&open.of[l], continuing(load(&codes.of[l])));
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
    const __m256i deep_even =
        _mm256_or_si256(_mm256_and_si256(codes3, pairs),
                        _mm256_slli_epi64(_mm256_and_si256(reach3, _mm256_set1_epi8(0x11)), 2));
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
    store_lanes(symbols, lane, 0, _mm256_unpacklo_epi16(f01_even, f23_even),
                _mm256_unpacklo_epi16(f01_odd, f23_odd));
    store_lanes(symbols, lane, 2, _mm256_unpackhi_epi16(f01_even, f23_even),
                _mm256_unpackhi_epi16(f01_odd, f23_odd));
  }

 private:
  /// Every nibble of `deep_index` is below 8, so that its high ones do not disturb the shuffle.
  [[nodiscard]] __m256i low_nibbles(__m256i index, __m256i deep_index) const noexcept {
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    return _mm256_or_si256(_mm256_shuffle_epi8(shallow_, _mm256_and_si256(index, nibble)),
                           _mm256_shuffle_epi8(deep_, deep_index));
  }
  __m256i shallow_;
  __m256i deep_;
};

/// Calls `body(lane, mask)` for each lane that has an open field.
template <class Body>
inline void for_each_open(const lane_words& open, Body&& body) noexcept {
  std::uint32_t closed = 0;
  for (unsigned l = 0; l < kLanes; l += 4) {
    const __m256i is_zero = _mm256_cmpeq_epi64(load(&open.of[l]), _mm256_setzero_si256());
    closed |= static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(is_zero))) << l;
  }
  for (std::uint32_t lanes = ~closed; lanes != 0; lanes &= lanes - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    body(l, open.of[l]);
  }
}

/// Place in value order of the value whose field starts at the lowest set bit of `mask`.
inline unsigned first_value(unsigned lane, std::uint64_t mask) noexcept {
  return value_order(kLanes * lane + static_cast<unsigned>(std::countr_zero(mask)) / 2);
}

/// Level 4 and the escapes.
inline bool decode_deepest(const coding& c, word_reader& bits, const std::uint8_t* tail, std::uint32_t n_bits,
                           const lane_words& open, bool escapes, std::uint8_t* symbols) noexcept {
  std::array<std::uint16_t, kTileValues> places;
  std::uint32_t n_escapes = 0;
  bool inside = true;
  for_each_open(open, [&](unsigned lane, std::uint64_t mask) {
    if (!inside) return;
    for (; mask != 0; mask &= mask - 1) {
      const auto code = static_cast<std::uint32_t>(bits.peek()) & 7;
      const unsigned value = first_value(lane, mask);
      // The entry after the last is never looked at: an escape's symbol comes later.
      symbols[value] = c.book.symbols[(kLevel4First + code) & 15];
      places[n_escapes] = static_cast<std::uint16_t>(value);
      n_escapes += code == kLevel4Escape ? 1 : 0;
      bits.skip(3);
    }
    inside = bits.is_inside();
  });
  if (!inside || (n_escapes != 0) != escapes) return false;
  return portable::take_escapes(c, tail, bits.at(), n_bits, places.data(), n_escapes, symbols);
}

bool decode_rank(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                 std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  lane_words open1;
  lane_words codes2;
  lane_words open2;
  lane_words codes3;
  lane_words open3;
  word_reader bits(tail, words * 32);
  for (unsigned l = 0; l < kLanes; l += 4) store<false>(&open1.of[l], continuing(load(code_plane + 8 * l)));
  for (unsigned line = 0; line < kCodeBytes; line += 64) {
    prefetch(code_plane + line, kPrefetchTiles * kCodeBytes);
  }
  for (unsigned line = 0; line < words * 4; line += 64)
    prefetch(tail + line, std::uintptr_t{kPrefetchTiles} * words * 4);
  if (!decode_level<2>(bits, open1, codes2)) return false;
  mark_continuing(codes2, open2);
  if (!decode_level<4>(bits, open2, codes3)) return false;
  mark_continuing(codes3, open3);
  const rank_symbols tables(c);
  for (unsigned l = 0; l < kLanes; l += 4) {
    tables.store_symbols(load(code_plane + 8 * l), load(&codes2.of[l]), load(&codes3.of[l]),
                         load(&open2.of[l]), l, symbols);
  }
  return decode_deepest(c, bits, tail, words * 32, open3, escapes, symbols);
}

/// Appends up to 64 bits at a time to a bit string; may write 8 bytes past its end.
class word_writer {
 public:
  explicit word_writer(std::uint8_t* dst) noexcept : begin_(dst), dst_(dst) {}
  /// `width` up to 56; `bits` has nothing set above it.
  void put(std::uint64_t bits, std::uint32_t width) noexcept {
    pending_ |= bits << n_pending_;
    store_le<std::uint64_t>(dst_, pending_);
    n_pending_ += width;
    dst_ += n_pending_ >> 3;
    pending_ >>= n_pending_ & ~std::uint64_t{7};
    n_pending_ &= 7;
  }
  /// `width` up to 64.
  void put_word(std::uint64_t bits, std::uint32_t width) noexcept {
    const std::uint32_t first = std::min(width, 32u);
    put(bits & 0xffffffffu, first);
    put(bits >> 32, width - first);
  }
  [[nodiscard]] std::uint32_t n_bits() const noexcept {
    return static_cast<std::uint32_t>(dst_ - begin_) * 8 + static_cast<std::uint32_t>(n_pending_);
  }
  void align(std::uint32_t unit) noexcept { put(0, (unit - n_bits() % unit) % unit); }

 private:
  std::uint8_t* begin_;
  std::uint8_t* dst_;
  std::uint64_t pending_ = 0;
  std::uint64_t n_pending_ = 0;
};

/// Two bits of each byte, starting at bit `Shift`, of the four sub-blocks of four lanes as one word per lane.
template <unsigned Shift>
inline __m256i pack_fields(const __m256i (&rows)[4]) noexcept {
  const __m256i by_pair = _mm256_set1_epi16(0x0401);
  const __m256i by_quad = _mm256_set1_epi32(0x00100001);
  const __m256i by_quad_high = _mm256_set1_epi32(0x10000100);
  __m256i quads[4];
  for (unsigned s = 0; s < 4; ++s) {
    const __m256i fields = _mm256_and_si256(rows[s], _mm256_set1_epi8(3 << Shift));
    quads[s] = _mm256_madd_epi16(_mm256_maddubs_epi16(fields, by_pair), s < 2 ? by_quad : by_quad_high);
  }
  // Each 32-bit half of a lane now holds sub-blocks 0, 2, 1, 3; the shuffle brings both halves of a sub-block
  // together.
  const __m256i mixed = _mm256_or_si256(_mm256_srli_epi32(_mm256_or_si256(quads[0], quads[2]), Shift),
                                        _mm256_slli_epi32(_mm256_or_si256(quads[1], quads[3]), 16 - Shift));
  const __m256i order = _mm256_setr_epi8(0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15,  //
                                         0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15);
  return _mm256_shuffle_epi8(mixed, order);
}

/// Codes after level 1 and which values take them. Fields of values that do not reach a level are anything
/// but 3.
struct rank_codes {
  lane_words open1;
  lane_words codes2;
  lane_words open2;
  lane_words codes3;
  lane_words open3;
};

template <unsigned N>
inline void code_symbols(const symbol_table& table, const std::uint8_t* symbols, std::uint8_t* code_plane,
                         rank_codes& codes) noexcept {
  const __m256i ones = _mm256_set1_epi8(-1);
  for (unsigned l = 0; l < kLanes; l += 4) {
    __m256i rows[4];
    for (unsigned s = 0; s < 4; ++s) rows[s] = table.find<N>(load(symbols + 256 * s + 8 * l));
    const __m256i codes1 = _mm256_xor_si256(pack_fields<0>(rows), ones);
    const __m256i codes2 = _mm256_xor_si256(pack_fields<2>(rows), ones);
    const __m256i codes3 = _mm256_xor_si256(pack_fields<4>(rows), ones);
    prefetch(code_plane + 8 * l, kPrefetchTiles * kCodeBytes);
    store<false>(code_plane + 8 * l, codes1);
    store<false>(&codes.open1.of[l], continuing(codes1));
    store<false>(&codes.codes2.of[l], codes2);
    store<false>(&codes.open2.of[l], continuing(codes2));
    store<false>(&codes.codes3.of[l], codes3);
    store<false>(&codes.open3.of[l], continuing(codes3));
  }
}

/// Appends the codes of the open values of every lane; `Group` lanes share a write if their codes fit.
template <unsigned Group>
inline void encode_level(word_writer& bits, const lane_words& open, const lane_words& codes) noexcept {
  for (unsigned l = 0; l < kLanes; l += Group) {
    std::uint32_t n = 0;
    for (unsigned i = 0; i < Group; ++i) n += n_set(open.of[l + i]);
    if (n <= 28) [[likely]] {
      std::uint64_t fields = 0;
      for (unsigned i = Group; i-- > 0;) {
        const std::uint64_t mask = open.of[l + i];
        fields = (fields << (2 * n_set(mask) & 63)) | _pext_u64(codes.of[l + i], 3 * mask);
      }
      bits.put(fields, 2 * n);
    } else {
      for (unsigned i = 0; i < Group; ++i) {
        const std::uint64_t mask = open.of[l + i];
        bits.put_word(_pext_u64(codes.of[l + i], 3 * mask), 2 * n_set(mask));
      }
    }
  }
}

coded_tile encode_rank(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                       std::uint8_t* tail) noexcept {
  // Codes of entries 0..8 as c1 | c2 << 2 | c3 << 4, inverted, so that what the table does not find continues
  // at every level. Codes below the level that an entry ends at are 0.
  const __m128i by_entry =
      _mm_setr_epi8(0x3f, 0x3e, 0x3d, 0x3c, 0x38, 0x34, 0x30, 0x20, 0x10, 0, 0, 0, 0, 0, 0, 0);
  const symbol_table table(c, by_entry);
  rank_codes codes;
  with_table_size(table, [&](auto n) { code_symbols<n()>(table, symbols, code_plane, codes); });
  word_writer bits(tail);
  encode_level<2>(bits, codes.open1, codes.codes2);
  encode_level<4>(bits, codes.open2, codes.codes3);
  if (bits.n_bits() >= c.plan.raw_words() * 32) return {};

  std::array<std::uint8_t, kTileValues> escapes;
  std::uint32_t n_escapes = 0;
  for_each_open(codes.open3, [&](unsigned lane, std::uint64_t mask) {
    for (; mask != 0; mask &= mask - 1) {
      const std::uint8_t symbol = symbols[first_value(lane, mask)];
      const std::uint32_t entry = c.place[symbol];
      escapes[n_escapes] = symbol;
      n_escapes += entry == kNoPlace ? 1 : 0;
      bits.put(std::min(entry - kLevel4First, kLevel4Escape), 3);
    }
  });
  bits.align(8);
  for (std::uint32_t i = 0; i < n_escapes; ++i) bits.put(escapes[i], 8);
  bits.align(32);
  const std::uint32_t words = bits.n_bits() / 32;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = n_escapes != 0};
}

}  // namespace avx2
}  // namespace
TERSOR_TARGET_END
