// AVX2: digest, and BF16 values to and from their planes.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "codec/tile_ops.hpp"
#include "cpu/nh_row_keys.hpp"
#include "cpu/target.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX2)
namespace {
namespace avx2 {

using namespace tersor::codec_detail;

inline __m256i load(const void* src) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(src));
}
inline __m128i load_half(const void* src) noexcept {
  return _mm_loadu_si128(static_cast<const __m128i*>(src));
}

/// `Stream` needs an address that 32 divides, and is worth it only where all of a cache line is written at
/// about the same time.
template <bool Stream>
inline void store(void* dst, __m256i v) noexcept {
  if constexpr (Stream) {
    _mm256_stream_si256(static_cast<__m256i*>(dst), v);
  } else {
    _mm256_storeu_si256(static_cast<__m256i*>(dst), v);
  }
}

/// Fetches the line `ahead` bytes after `p`, which may lie outside the buffer. The planes change page every
/// few tiles, where the hardware's own prefetch stops.
inline void prefetch(const void* p, std::uintptr_t ahead) noexcept {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(p) + ahead), _MM_HINT_T0);
}
constexpr unsigned kPrefetchTiles = 2;

constexpr std::size_t kLine = 64;

inline std::size_t bytes_past_line(const void* p) noexcept {
  return reinterpret_cast<std::uintptr_t>(p) % kLine;
}

/// Copies to any address past the caches; the line that a tile shares with the next goes through them, and is
/// fetched ahead, because the stores that follow would wait for it.
inline void stream_copy(std::uint8_t* dst, const std::uint8_t* src, std::size_t n_bytes) noexcept {
  const std::size_t head = (kLine - bytes_past_line(dst)) % kLine;
  const std::size_t end = head + (n_bytes - head) / kLine * kLine;
  prefetch(dst, kPrefetchTiles * n_bytes);
  memcpy(dst, src, head);
  for (std::size_t at = head; at < end; at += 32) store<true>(dst + at, load(src + at));
  memcpy(dst + end, src + end, n_bytes - end);
}

/// (a + key) * (b + key) of four 64-bit words.
inline __m256i nh_products(__m256i words, const std::uint32_t* keys) noexcept {
  const __m256i keyed = _mm256_add_epi32(words, load(keys));
  return _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
}

/// The two NH sums of a tile while it passes by in vectors of four columns.
class nh_accumulator {
 public:
  // Written out, because an implicit constructor would not get the target's instructions.
  nh_accumulator() noexcept : sum0_(_mm256_setzero_si256()), sum1_(_mm256_setzero_si256()) {}
  /// `keys` of row 0 at these four columns; `row_words` to the next row.
  void add_columns(const __m256i (&rows)[kRows], const std::uint32_t* keys0, const std::uint32_t* keys1,
                   unsigned row_words) noexcept {
    __m256i column0 = nh_products(rows[0], keys0);
    __m256i column1 = nh_products(rows[0], keys1);
    for (unsigned s = 1; s < kRows; ++s) {
      column0 = _mm256_add_epi64(column0, nh_products(rows[s], keys0 + s * row_words));
      column1 = _mm256_add_epi64(column1, nh_products(rows[s], keys1 + s * row_words));
    }
    sum0_ = _mm256_add_epi32(sum0_, column0);
    sum1_ = _mm256_add_epi32(sum1_, column1);
  }
  void finish(nh_sums& sums) const noexcept {
    sums.t[0] = fold(sum0_);
    sums.t[1] = fold(sum1_);
  }

 private:
  static std::uint64_t fold(__m256i v) noexcept {
    const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_add_epi32(half, _mm_unpackhi_epi64(half, half))));
  }
  __m256i sum0_;
  __m256i sum1_;
};

template <unsigned ValueBytes>
void nh_tile(const std::uint8_t* tile, nh_sums& sums) noexcept {
  constexpr unsigned kRowWords = nh_row_keys<ValueBytes>::kRowWords;
  const std::uint32_t* keys0 = kNhRowKeys<ValueBytes>.words[0].data();
  const std::uint32_t* keys1 = kNhRowKeys<ValueBytes>.words[1].data();
  nh_accumulator digest;
  for (unsigned i = 0; i < kRowWords; i += 8) {
    const __m256i rows[kRows] = {load(tile + 4 * i), load(tile + 4 * (kRowWords + i)),
                                 load(tile + 4 * (2 * kRowWords + i)), load(tile + 4 * (3 * kRowWords + i))};
    digest.add_columns(rows, keys0 + i, keys1 + i, kRowWords);
  }
  digest.finish(sums);
}

void nh(const std::uint8_t* tile, std::uint32_t value_bytes, nh_sums& sums) noexcept {
  switch (value_bytes) {
    case 1:
      return nh_tile<1>(tile, sums);
    case 2:
      return nh_tile<2>(tile, sums);
    default:
      return nh_tile<4>(tile, sums);
  }
}

/// Sixteen BF16 values from their sign-mantissa bytes and exponents.
inline __m256i join_bf16_values(const std::uint8_t* rest, const std::uint8_t* symbols) noexcept {
  const __m256i sign_mantissa =
      _mm256_and_si256(_mm256_cvtepi8_epi16(load_half(rest)), _mm256_set1_epi16(static_cast<short>(0x807f)));
  return _mm256_or_si256(sign_mantissa, _mm256_slli_epi16(_mm256_cvtepu8_epi16(load_half(symbols)), 7));
}

template <bool Stream>
void join_bf16_tile(const std::uint8_t* rest, const std::uint8_t* symbols, std::uint8_t* values,
                    nh_sums& sums) noexcept {
  constexpr unsigned kRowWords = nh_row_keys<2>::kRowWords;
  const std::uint32_t* keys0 = kNhRowKeys<2>.words[0].data();
  const std::uint32_t* keys1 = kNhRowKeys<2>.words[1].data();
  nh_accumulator digest;
  // 32 values of each row a step, so that the four write-combining buffers in use fill whole lines.
  for (unsigned v = 0; v < 256; v += 32) {
    __m256i low[kRows];
    __m256i high[kRows];
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = 256 * s + v;
      if (v % 64 == 0) prefetch(rest + at, kPrefetchTiles * kTileValues);
      low[s] = join_bf16_values(rest + at, symbols + at);
      high[s] = join_bf16_values(rest + at + 16, symbols + at + 16);
      store<Stream>(values + 2 * at, low[s]);
      store<Stream>(values + 2 * at + 32, high[s]);
    }
    digest.add_columns(low, keys0 + v / 2, keys1 + v / 2, kRowWords);
    digest.add_columns(high, keys0 + v / 2 + 8, keys1 + v / 2 + 8, kRowWords);
  }
  digest.finish(sums);
}

void join_bf16(const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values, nh_sums& sums,
               bool stream) noexcept {
  if (!stream) return join_bf16_tile<false>(rest.bytes[0], symbols, values, sums);
  if (bytes_past_line(values) == 0) return join_bf16_tile<true>(rest.bytes[0], symbols, values, sums);
  alignas(kLine) std::array<std::uint8_t, 2 * kTileValues> staged;
  join_bf16_tile<false>(rest.bytes[0], symbols, staged.data(), sums);
  stream_copy(values, staged.data(), staged.size());
}

/// Sign-mantissa bytes and exponents of 32 values.
struct bf16_planes {
  __m256i rest;
  __m256i symbols;
};

inline bf16_planes split_bf16_values(__m256i v0, __m256i v1) noexcept {
  // Even bytes of each half, then odd bytes; the permutation puts the four pieces of both vectors in value
  // order.
  const __m256i apart = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,  //
                                         0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m256i p0 = _mm256_shuffle_epi8(v0, apart);
  const __m256i p1 = _mm256_shuffle_epi8(v1, apart);
  const __m256i low = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(p0, p1), 0xd8);
  const __m256i high = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(p0, p1), 0xd8);
  // Bit 7 of the low byte is the exponent's lowest bit, bit 7 of the high byte the sign: they change places,
  // which leaves sign and mantissa in one byte and the exponent, rotated right by one, in the other.
  const __m256i differ =
      _mm256_and_si256(_mm256_xor_si256(low, high), _mm256_set1_epi8(static_cast<char>(0x80)));
  const __m256i rotated = _mm256_xor_si256(high, differ);
  const __m256i carry = _mm256_cmpgt_epi8(_mm256_setzero_si256(), rotated);
  return {_mm256_xor_si256(low, differ), _mm256_sub_epi8(_mm256_add_epi8(rotated, rotated), carry)};
}

void split_bf16_tile(const std::uint8_t* values, std::uint8_t* rest, std::uint8_t* symbols,
                     nh_sums& sums) noexcept {
  constexpr unsigned kRowWords = nh_row_keys<2>::kRowWords;
  const std::uint32_t* keys0 = kNhRowKeys<2>.words[0].data();
  const std::uint32_t* keys1 = kNhRowKeys<2>.words[1].data();
  nh_accumulator digest;
  for (unsigned v = 0; v < 256; v += 32) {
    __m256i low[kRows];
    __m256i high[kRows];
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = 256 * s + v;
      prefetch(values + 2 * at, 2 * kPrefetchTiles * kTileValues);
      low[s] = load(values + 2 * at);
      high[s] = load(values + 2 * at + 32);
      const bf16_planes planes = split_bf16_values(low[s], high[s]);
      store<false>(rest + at, planes.rest);
      store<false>(symbols + at, planes.symbols);
    }
    digest.add_columns(low, keys0 + v / 2, keys1 + v / 2, kRowWords);
    digest.add_columns(high, keys0 + v / 2 + 8, keys1 + v / 2 + 8, kRowWords);
  }
  digest.finish(sums);
}

void split_bf16(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
                bool stream) noexcept {
  if (!stream) return split_bf16_tile(values, rest.bytes[0], symbols, sums);
  // Rows are written half a line at a time, so streaming them directly would be slow even where they are
  // aligned.
  alignas(kLine) std::array<std::uint8_t, kTileValues> staged;
  split_bf16_tile(values, staged.data(), symbols, sums);
  stream_copy(rest.bytes[0], staged.data(), staged.size());
}

void finish() noexcept {
  _mm_sfence();
}

}  // namespace avx2
}  // namespace
TERSOR_TARGET_END
