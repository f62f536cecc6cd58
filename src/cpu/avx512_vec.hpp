// Vectors of 64 bytes: loads, stores, field planes and the two orders of a tile. Part of avx512.cpp only.
//
// A "value-order" vector (s, g) holds sub-block s of lanes 8 g .. 8 g + 7, eight bytes (one granule) a lane.
// A "lane-order" vector m holds lanes 2 m and 2 m + 1, four granules each. Four value-order vectors of one g
// and four lane-order vectors hold the same 8 x 4 granules.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "codec/tile_ops.hpp"
#include "cpu/target.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

using namespace tersor::codec_detail;
using vec = __m512i;
using bytes64 = std::array<std::uint8_t, 64>;
using words8 = std::array<std::uint64_t, 8>;

constexpr unsigned kGroups = 4;  ///< groups of 8 lanes in a tile
constexpr unsigned kVec = 64;    ///< bytes, and byte values, in a vector

#define TERSOR_VEC inline __attribute__((always_inline))

TERSOR_VEC vec load(const void* p) noexcept {
  return _mm512_loadu_si512(p);
}
TERSOR_VEC void store(void* p, vec v) noexcept {
  _mm512_storeu_si512(p, v);
}
TERSOR_VEC vec splat(unsigned byte) noexcept {
  return _mm512_set1_epi8(static_cast<char>(byte));
}
TERSOR_VEC unsigned count_bits(std::uint64_t mask) noexcept {
  return static_cast<unsigned>(_mm_popcnt_u64(mask));
}
/// The lowest `n` bits set; any `n`.
TERSOR_VEC std::uint64_t low_mask(std::uint32_t n) noexcept {
  return n >= 64 ? ~std::uint64_t{0} : _bzhi_u64(~std::uint64_t{0}, n);
}
/// Bits of `a` where `mask` is set, else of `b`.
TERSOR_VEC vec select(vec mask, vec a, vec b) noexcept {
  return _mm512_ternarylogic_epi32(mask, a, b, 0xCA);
}

/// Byte `i` of a constant vector is `f(i)`.
template <class F>
constexpr bytes64 make_bytes(F f) noexcept {
  bytes64 v = {};
  for (unsigned i = 0; i < 64; ++i) v[i] = static_cast<std::uint8_t>(f(i));
  return v;
}

/// Fetches the line that lies `ahead` bytes after `p`, wherever that is: a prefetch never faults.
TERSOR_VEC void prefetch(const std::uint8_t* p, std::uintptr_t ahead) noexcept {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(p) + ahead), _MM_HINT_T1);
}

/// Stores of one tile's part of a plane or tensor, past the caches where asked for and possible.
template <bool Stream>
TERSOR_VEC void put(std::uint8_t* p, vec v) noexcept {
  if constexpr (Stream) {
    _mm512_stream_si512(reinterpret_cast<vec*>(p), v);
  } else {
    store(p, v);
  }
}
TERSOR_VEC bool is_aligned(const void* p) noexcept {
  return reinterpret_cast<std::uintptr_t>(p) % kVec == 0;
}

/// Moves `n` staged bytes past the caches to an address that is not a multiple of 64. The lines that it
/// shares with its neighbours are written through the caches.
void stream_unaligned(std::uint8_t* dst, const std::uint8_t* staged, std::size_t n) noexcept {
  const std::size_t head = kVec - reinterpret_cast<std::uintptr_t>(dst) % kVec;
  _mm512_mask_storeu_epi8(dst, low_mask(static_cast<std::uint32_t>(head)), load(staged));
  std::size_t at = head;
  for (; at + kVec <= n; at += kVec) put<true>(dst + at, load(staged + at));
  const std::uint64_t rest = low_mask(static_cast<std::uint32_t>(n - at));
  _mm512_mask_storeu_epi8(dst + at, rest, _mm512_maskz_loadu_epi8(rest, staged + at));
}

// Orders of a tile
// ---------------------------------------------------------------------------------------------------

/// Four vectors of one group of lanes.
struct quad {
  vec v[4];
};

constexpr words8 kPairLow = {0, 8, 1, 9, 2, 10, 3, 11};
constexpr words8 kPairHigh = {4, 12, 5, 13, 6, 14, 7, 15};
constexpr words8 kFoldLow = {0, 1, 8, 9, 2, 3, 10, 11};
constexpr words8 kFoldHigh = {4, 5, 12, 13, 6, 7, 14, 15};

/// Value order to lane order.
TERSOR_VEC quad to_lanes(const quad& in) noexcept {
  const vec low = load(kPairLow.data());
  const vec high = load(kPairHigh.data());
  const vec s01_low = _mm512_permutex2var_epi64(in.v[0], low, in.v[1]);
  const vec s01_high = _mm512_permutex2var_epi64(in.v[0], high, in.v[1]);
  const vec s23_low = _mm512_permutex2var_epi64(in.v[2], low, in.v[3]);
  const vec s23_high = _mm512_permutex2var_epi64(in.v[2], high, in.v[3]);
  const vec fold_low = load(kFoldLow.data());
  const vec fold_high = load(kFoldHigh.data());
  return {{_mm512_permutex2var_epi64(s01_low, fold_low, s23_low),
           _mm512_permutex2var_epi64(s01_low, fold_high, s23_low),
           _mm512_permutex2var_epi64(s01_high, fold_low, s23_high),
           _mm512_permutex2var_epi64(s01_high, fold_high, s23_high)}};
}

constexpr words8 kSubBlocks01 = {0, 4, 8, 12, 1, 5, 9, 13};
constexpr words8 kSubBlocks23 = {2, 6, 10, 14, 3, 7, 11, 15};

/// Lane order to value order.
TERSOR_VEC quad to_values(const quad& in) noexcept {
  const vec s01 = load(kSubBlocks01.data());
  const vec s23 = load(kSubBlocks23.data());
  const vec low01 = _mm512_permutex2var_epi64(in.v[0], s01, in.v[1]);
  const vec low23 = _mm512_permutex2var_epi64(in.v[0], s23, in.v[1]);
  const vec high01 = _mm512_permutex2var_epi64(in.v[2], s01, in.v[3]);
  const vec high23 = _mm512_permutex2var_epi64(in.v[2], s23, in.v[3]);
  return {{_mm512_shuffle_i64x2(low01, high01, 0x44), _mm512_shuffle_i64x2(low01, high01, 0xEE),
           _mm512_shuffle_i64x2(low23, high23, 0x44), _mm512_shuffle_i64x2(low23, high23, 0xEE)}};
}

// Field planes
// -------------------------------------------------------------------------------------------------------

/// Eight fields of 2 bits, one a byte, become 8 bits in the low byte of each 32-bit word half: two bytes a
/// granule.
TERSOR_VEC vec gather2(vec fields) noexcept {
  const vec pairs = _mm512_maddubs_epi16(fields, _mm512_set1_epi16(0x0401));
  return _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00100001));
}

constexpr bytes64 kPack2 = make_bytes([](unsigned i) { return (i & 8) | ((i & 1) << 2) | ((i >> 1) & 3); });

/// 2-bit fields (0..3, one a byte) in value order -> their 64 bytes of the plane.
TERSOR_VEC vec pack2(const quad& in) noexcept {
  const vec low = _mm512_or_si512(gather2(in.v[0]), _mm512_slli_epi32(gather2(in.v[1]), 8));
  const vec high = _mm512_or_si512(gather2(in.v[2]), _mm512_slli_epi32(gather2(in.v[3]), 8));
  return _mm512_shuffle_epi8(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)), load(kPack2.data()));
}

constexpr bytes64 kShift2 = make_bytes([](unsigned i) { return 2 * (i & 7); });

/// Sub-block `s` of 64 plane bytes of 2-bit fields, in value order; bits 2..7 of each byte are not cleared.
TERSOR_VEC vec unpack2(vec plane, unsigned s) noexcept {
  return _mm512_multishift_epi64_epi8(_mm512_add_epi8(load(kShift2.data()), splat(16 * s)), plane);
}

constexpr bytes64 kPack4Low =
    make_bytes([](unsigned i) { return ((i & 8) << 3) | ((i >> 4) << 3) | ((i & 3) << 1) | ((i >> 2) & 1); });
constexpr bytes64 kPack4High = make_bytes(
    [](unsigned i) { return ((i & 8) << 3) | (32 + ((i >> 4) << 3)) | ((i & 3) << 1) | ((i >> 2) & 1); });

struct vec_pair {
  vec low, high;
};

/// 4-bit fields (0..15, one a byte) in value order -> their 128 bytes of the plane.
TERSOR_VEC vec_pair pack4(const quad& in) noexcept {
  const vec weights = _mm512_set1_epi16(0x1001);
  const vec s01 = _mm512_or_si512(_mm512_maddubs_epi16(in.v[0], weights),
                                  _mm512_slli_epi16(_mm512_maddubs_epi16(in.v[1], weights), 8));
  const vec s23 = _mm512_or_si512(_mm512_maddubs_epi16(in.v[2], weights),
                                  _mm512_slli_epi16(_mm512_maddubs_epi16(in.v[3], weights), 8));
  return {_mm512_permutex2var_epi8(s01, load(kPack4Low.data()), s23),
          _mm512_permutex2var_epi8(s01, load(kPack4High.data()), s23)};
}

constexpr words8 kEven = {0, 2, 4, 6, 8, 10, 12, 14};
constexpr words8 kOdd = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr bytes64 kShift4 = make_bytes([](unsigned i) { return 4 * (i & 7); });

/// 128 plane bytes of 4-bit fields -> value order; bits 4..7 of each byte are not cleared.
TERSOR_VEC quad unpack4(const std::uint8_t* plane) noexcept {
  const vec low = load(plane);
  const vec high = load(plane + kVec);
  const vec s01 = _mm512_permutex2var_epi64(low, load(kEven.data()), high);
  const vec s23 = _mm512_permutex2var_epi64(low, load(kOdd.data()), high);
  const vec first = load(kShift4.data());
  const vec second = _mm512_add_epi8(first, splat(32));
  return {{_mm512_multishift_epi64_epi8(first, s01), _mm512_multishift_epi64_epi8(second, s01),
           _mm512_multishift_epi64_epi8(first, s23), _mm512_multishift_epi64_epi8(second, s23)}};
}

constexpr bytes64 kPack1 = make_bytes([](unsigned i) { return 8 * (i & 3) + ((i >> 2) & 7); });
constexpr bytes64 kUnpack1 = make_bytes([](unsigned i) { return 4 * (i & 7) + ((i >> 3) & 3); });

/// Four masks of 64 bits in value order -> their 32 bytes of a 1-bit plane.
TERSOR_VEC void pack1(const std::array<std::uint64_t, 4>& masks, std::uint8_t* plane) noexcept {
  const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks.data()));
  const __m256i order = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kPack1.data()));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(plane), _mm256_permutexvar_epi8(order, in));
}
TERSOR_VEC std::array<std::uint64_t, 4> unpack1(const std::uint8_t* plane) noexcept {
  const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(plane));
  const __m256i order = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kUnpack1.data()));
  std::array<std::uint64_t, 4> masks;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(masks.data()), _mm256_permutexvar_epi8(order, in));
  return masks;
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
