// NEON: digest, and BF16 values to and from their planes. For little-endian AArch64.
#pragma once

#include <cstdint>

#include <arm_neon.h>

#include "codec/tile_ops.hpp"
#include "cpu/nh_row_keys.hpp"

namespace {
namespace neon {

using namespace tersor::codec_detail;

/// (a + key) * (b + key) of four 64-bit words, summed over the rows of a tile: two columns in each vector.
struct nh_columns {
  uint64x2_t low = vdupq_n_u64(0);
  uint64x2_t high = vdupq_n_u64(0);

  void add(uint32x4x2_t words, const std::uint32_t* keys) noexcept {
    const uint32x4x2_t key = vld2q_u32(keys);
    const uint32x4_t a = vaddq_u32(words.val[0], key.val[0]);
    const uint32x4_t b = vaddq_u32(words.val[1], key.val[1]);
    low = vmlal_u32(low, vget_low_u32(a), vget_low_u32(b));
    high = vmlal_high_u32(high, a, b);
  }
  /// Both halves of every column to the two 32-bit sums, without carry between them.
  [[nodiscard]] uint32x4_t fold(uint32x4_t sum) const noexcept {
    return vaddq_u32(sum, vaddq_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)));
  }
};

inline std::uint64_t fold_lanes(uint32x4_t sum) noexcept {
  return vget_lane_u64(vreinterpret_u64_u32(vadd_u32(vget_low_u32(sum), vget_high_u32(sum))), 0);
}

template <unsigned ValueBytes>
void nh_tile(const std::uint8_t* tile, nh_sums& sums) noexcept {
  constexpr unsigned kRowWords = nh_row_keys<ValueBytes>::kRowWords;
  const auto& keys = kNhRowKeys<ValueBytes>.words;
  uint32x4_t sum0 = vdupq_n_u32(0);
  uint32x4_t sum1 = vdupq_n_u32(0);
  for (unsigned i = 0; i < kRowWords; i += 8) {
    nh_columns columns0;
    nh_columns columns1;
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = s * kRowWords + i;
      // Loaded as bytes, because a tile may have any alignment.
      const uint8x16_t first = vld1q_u8(tile + std::size_t{4} * at);
      const uint8x16_t second = vld1q_u8(tile + std::size_t{4} * at + 16);
      const uint32x4x2_t words = vuzpq_u32(vreinterpretq_u32_u8(first), vreinterpretq_u32_u8(second));
      columns0.add(words, &keys[0][at]);
      columns1.add(words, &keys[1][at]);
    }
    sum0 = columns0.fold(sum0);
    sum1 = columns1.fold(sum1);
  }
  sums.t = {fold_lanes(sum0), fold_lanes(sum1)};
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

/// A value's low byte is the exponent's lowest bit above the mantissa, its high byte the sign above the
/// exponent's rest.
void split_bf16(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
                bool /*stream*/) noexcept {
  const uint8x16_t sign = vdupq_n_u8(0x80);
  for (unsigned i = 0; i < kTileValues; i += 16) {
    const uint8x16x2_t bytes = vld2q_u8(values + std::size_t{2} * i);
    vst1q_u8(rest.bytes[0] + i, vbslq_u8(sign, bytes.val[1], bytes.val[0]));
    vst1q_u8(symbols + i, vsriq_n_u8(vshlq_n_u8(bytes.val[1], 1), bytes.val[0], 7));
  }
  nh_tile<2>(values, sums);
}

void join_bf16(const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values, nh_sums& sums,
               bool /*stream*/) noexcept {
  for (unsigned i = 0; i < kTileValues; i += 16) {
    const uint8x16_t sign_mantissa = vld1q_u8(rest.bytes[0] + i);
    const uint8x16_t exponent = vld1q_u8(symbols + i);
    const uint8x16x2_t bytes = {vsliq_n_u8(sign_mantissa, exponent, 7),
                                vsriq_n_u8(sign_mantissa, exponent, 1)};
    vst2q_u8(values + std::size_t{2} * i, bytes);
  }
  nh_tile<2>(values, sums);
}

}  // namespace neon
}  // namespace
