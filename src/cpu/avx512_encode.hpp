// Symbols to code plane and tail. Part of avx512.cpp only.
#pragma once

#include "cpu/avx512_places.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// Appends bits to a tail; the unused bits of the last 64 are zero.
class bit_sink {
 public:
  /// The `n_bits` before are already at `tail`, zero up to the next 64 bits.
  bit_sink(std::uint8_t* tail, std::uint32_t n_bits) noexcept
      : at_(tail + (n_bits / 64) * 8), n_(n_bits % 64) {
    memcpy(&bits_, at_, 8);
    bits_ = _bzhi_u64(bits_, n_);
  }
  /// Appends `n` <= 64 bits; those above are zero.
  TERSOR_VEC void put(std::uint64_t bits, std::uint32_t n) noexcept {
    bits_ |= bits << n_;
    memcpy(at_, &bits_, 8);
    const std::uint32_t total = n_ + n;
    const std::uint64_t spill = (bits >> 1) >> (63 - n_);
    // Arithmetic, as a branch here could not be predicted.
    bits_ = total >= 64 ? spill : bits_;
    at_ += (total / 64) * 8;
    n_ = total % 64;
  }
  /// Writes what is left; returns the end, zero bits up to a whole byte included.
  [[nodiscard]] std::uint8_t* finish() noexcept {
    memcpy(at_, &bits_, 8);
    return at_ + (n_ + 7) / 8;
  }

 private:
  std::uint8_t* at_;
  std::uint64_t bits_ = 0;
  std::uint32_t n_;
};

/// Values that no level has coded yet, in lane order, one byte each.
struct open_values {
  alignas(64) std::array<std::uint8_t, kTileValues + kVec> bytes;
  std::uint32_t n = 0;

  /// Appends the bytes of `v` that `mask` names.
  TERSOR_VEC void append(vec v, std::uint64_t mask) noexcept {
    store(bytes.data() + n, _mm512_maskz_compress_epi8(mask, v));
    n += count_bits(mask);
  }
  /// 64 of them less `below`, zeros past the end.
  TERSOR_VEC vec take(std::uint32_t at, unsigned below) const noexcept {
    return _mm512_maskz_sub_epi8(low_mask(n - at), load(bytes.data() + at), splat(below));
  }
};

/// Writes the escapes' symbols in lane order; returns their end.
template <class Places>
std::uint8_t* put_escapes(const Places& places, const std::uint8_t* symbols, std::uint8_t* to) noexcept {
  for (unsigned g = 0; g < kGroups; ++g) {
    quad in;
    for (unsigned s = 0; s < kRows; ++s) in.v[s] = load(symbols + 256 * s + 64 * g);
    const quad lanes = to_lanes(in);
    for (const vec v : lanes.v) {
      const std::uint64_t mask = _mm512_cmpeq_epi8_mask(places(v), splat(kNoPlace));
      store(to, _mm512_maskz_compress_epi8(mask, v));
      to += count_bits(mask);
    }
  }
  return to;
}

/// Closes a tail of whole bytes with zeros up to a whole word.
TERSOR_VEC coded_tile close_tail(const coding& c, const std::uint8_t* tail, std::uint8_t* end,
                                 bool escapes) noexcept {
  memset(end, 0, 4);
  const auto words = (static_cast<std::uint32_t>(end - tail) + 3) / 4;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = escapes};
}

/// Level 1 of a rank tile; leaves the places of the values that continue.
template <bool Stream, class Places>
TERSOR_VEC void put_level1(const Places& places, const std::uint8_t* symbols, std::uint8_t* code_plane,
                           open_values& open) noexcept {
  const vec three = splat(3);
  for (unsigned g = 0; g < kGroups; ++g) {
    quad place;
    quad code;
    for (unsigned s = 0; s < kRows; ++s) {
      place.v[s] = places(load(symbols + 256 * s + 64 * g));
      code.v[s] = _mm512_min_epu8(place.v[s], three);
    }
    put<Stream>(code_plane + 64 * g, pack2(code));
    const quad lanes = to_lanes(place);
    for (const vec v : lanes.v) open.append(v, _mm512_cmpge_epu8_mask(v, three));
  }
}

constexpr bytes64 kPack3 = make_bytes([](unsigned i) { return i < 24 ? 8 * (i / 3) + i % 3 : 63; });

/// 64 fields of 3 bits, one a byte -> 24 bytes.
TERSOR_VEC std::array<std::uint64_t, 4> pack3(vec fields) noexcept {
  const vec pairs = _mm512_maddubs_epi16(fields, _mm512_set1_epi16(0x0801));
  const vec fours = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00400001));
  const vec eights = _mm512_or_si512(fours, _mm512_srli_epi64(fours, 20));
  std::array<std::uint64_t, 4> words;
  const vec packed = _mm512_permutexvar_epi8(load(kPack3.data()), eights);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words.data()), _mm512_castsi512_si256(packed));
  return words;
}

/// A level of 2 bits: codes of `place` = places less those of the levels above.
TERSOR_VEC __m128i codes2(vec place) noexcept {
  return _mm512_cvtepi32_epi8(gather2(_mm512_min_epu8(place, splat(3))));
}

TERSOR_VEC void put_level3(vec place, std::uint32_t n, bit_sink& sink) noexcept {
  const __m128i codes = codes2(place);
  const std::uint32_t bits = 2 * (n < kVec ? n : kVec);
  sink.put(static_cast<std::uint64_t>(_mm_cvtsi128_si64(codes)), bits < 64 ? bits : 64);
  sink.put(static_cast<std::uint64_t>(_mm_extract_epi64(codes, 1)), bits < 64 ? 0 : bits - 64);
}

/// Level 4; true if a value escapes.
TERSOR_VEC bool put_level4(vec place, std::uint32_t n, bit_sink& sink) noexcept {
  const vec seven = splat(7);
  const auto words = pack3(_mm512_min_epu8(place, seven));
  const std::uint32_t bits = 3 * (n < kVec ? n : kVec);
  for (std::uint32_t i = 0; 64 * i < bits; ++i) sink.put(words[i], bits - 64 * i < 64 ? bits - 64 * i : 64);
  return _mm512_cmpge_epu8_mask(place, seven) != 0;
}

constexpr bytes64 kIota = make_bytes([](unsigned i) { return i; });

/// Levels 2 to 4 where at most 64 values reach level 3, which then never leave the registers. `fits` tells.
struct deep_result {
  std::uint8_t* end;
  bool escapes;
  bool fits;
};

TERSOR_VEC deep_result put_few(const open_values& open, std::uint8_t* tail) noexcept {
  const vec three = splat(3);
  vec open3 = _mm512_setzero_si512();
  std::uint32_t n3 = 0;
  for (std::uint32_t at = 0; at < open.n; at += kVec) {
    const vec place = open.take(at, 3);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(tail + at / 4), codes2(place));
    const std::uint64_t mask = _mm512_cmpge_epu8_mask(place, three);
    const vec order = _mm512_sub_epi8(load(kIota.data()), splat(n3));
    open3 =
        _mm512_mask_permutexvar_epi8(open3, ~low_mask(n3), order, _mm512_maskz_compress_epi8(mask, place));
    n3 += count_bits(mask);
  }
  if (n3 > kVec) return {nullptr, false, false};
  bit_sink sink(tail, 2 * open.n);
  const vec place3 = _mm512_maskz_sub_epi8(low_mask(n3), open3, three);
  put_level3(place3, n3, sink);
  const std::uint64_t mask = _mm512_cmpge_epu8_mask(place3, three);
  const std::uint32_t n4 = count_bits(mask);
  const vec place4 = _mm512_maskz_sub_epi8(low_mask(n4), _mm512_maskz_compress_epi8(mask, place3), three);
  const bool escapes = put_level4(place4, n4, sink);
  return {sink.finish(), escapes, true};
}

/// The same for any number of values.
deep_result put_many(const open_values& open, std::uint8_t* tail) noexcept {
  const vec three = splat(3);
  open_values open3;
  open_values open4;
  for (std::uint32_t at = 0; at < open.n; at += kVec) {
    const vec place = open.take(at, 3);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(tail + at / 4), codes2(place));
    open3.append(place, _mm512_cmpge_epu8_mask(place, three));
  }
  bit_sink sink(tail, 2 * open.n);
  for (std::uint32_t at = 0; at < open3.n; at += kVec) {
    const vec place = open3.take(at, 3);
    put_level3(place, open3.n - at, sink);
    open4.append(place, _mm512_cmpge_epu8_mask(place, three));
  }
  bool escapes = false;
  for (std::uint32_t at = 0; at < open4.n; at += kVec)
    escapes |= put_level4(open4.take(at, 3), open4.n - at, sink);
  return {sink.finish(), escapes, true};
}

/// The tail of a rank tile after level 1.
template <class Places>
TERSOR_VEC coded_tile put_rank_tail(const coding& c, const Places& places, const std::uint8_t* symbols,
                                    const open_values& open, std::uint8_t* tail) noexcept {
  deep_result deep = put_few(open, tail);
  if (!deep.fits) deep = put_many(open, tail);
  if (deep.escapes) deep.end = put_escapes(places, symbols, deep.end);
  return close_tail(c, tail, deep.end, deep.escapes);
}

template <class Places>
coded_tile encode_rank_with(const coding& c, const Places& places, const std::uint8_t* symbols,
                            std::uint8_t* code_plane, std::uint8_t* tail) noexcept {
  open_values open;
  put_level1<false>(places, symbols, code_plane, open);
  return put_rank_tail(c, places, symbols, open, tail);
}

/// Codes of a top16 tile; true if a value escapes.
template <bool Stream, class Places>
TERSOR_VEC bool put_top16(const Places& places, const std::uint8_t* symbols,
                          std::uint8_t* code_plane) noexcept {
  vec any = _mm512_setzero_si512();
  for (unsigned g = 0; g < kGroups; ++g) {
    quad code;
    for (unsigned s = 0; s < kRows; ++s) {
      const vec place = places(load(symbols + 256 * s + 64 * g));
      any = _mm512_or_si512(any, place);
      code.v[s] = _mm512_min_epu8(place, splat(15));
    }
    const vec_pair plane = pack4(code);
    put<Stream>(code_plane + 128 * g, plane.low);
    put<Stream>(code_plane + 128 * g + kVec, plane.high);
  }
  // Only kNoPlace has the high bit.
  return _mm512_movepi8_mask(any) != 0;
}

template <class Places>
coded_tile encode_top16_with(const coding& c, const Places& places, const std::uint8_t* symbols,
                             std::uint8_t* code_plane, std::uint8_t* tail) noexcept {
  const bool escapes = put_top16<false>(places, symbols, code_plane);
  return close_tail(c, tail, escapes ? put_escapes(places, symbols, tail) : tail, escapes);
}

coded_tile encode_rank(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                       std::uint8_t* tail) noexcept {
  return is_near(c) ? encode_rank_with(c, near_places(c), symbols, code_plane, tail)
                    : encode_rank_with(c, all_places(c), symbols, code_plane, tail);
}

coded_tile encode_top16(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                        std::uint8_t* tail) noexcept {
  return is_near(c) ? encode_top16_with(c, near_places(c), symbols, code_plane, tail)
                    : encode_top16_with(c, all_places(c), symbols, code_plane, tail);
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
