// NEON: what both codecs share - codebook lookups, the way between value order and lane order, two-bit
// fields.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include <arm_neon.h>

#include "cpu/neon_values.hpp"
#include "cpu/portable_tile.hpp"

namespace {
namespace neon {

using tersor::core::load_le;
using tersor::core::store_le;

constexpr unsigned kLanes = 32;

/// Sub-blocks `2 * half` and `2 * half + 1` of a lane: sixteen values that are neighbours in lane order.
inline uint8x16_t load_lane(const std::uint8_t* symbols, unsigned lane, unsigned half) noexcept {
  const std::uint8_t* src = symbols + 512 * half + 8 * lane;
  return vcombine_u8(vld1_u8(src), vld1_u8(src + 256));
}
inline void store_lane(std::uint8_t* symbols, unsigned lane, unsigned half, uint8x16_t values) noexcept {
  std::uint8_t* dst = symbols + 512 * half + 8 * lane;
  vst1_u8(dst, vget_low_u8(values));
  vst1_u8(dst + 256, vget_high_u8(values));
}

/// The 256-entry table symbol -> codebook entry, in four vector tables of 64.
class place_table {
 public:
  explicit place_table(const coding& c) noexcept {
    for (unsigned i = 0; i < 4; ++i) quarters_[i] = vld1q_u8_x4(c.place.data() + std::size_t{64} * i);
  }
  [[nodiscard]] uint8x16_t find(uint8x16_t symbols) const noexcept {
    const uint8x16_t step = vdupq_n_u8(64);
    uint8x16_t found = vqtbl4q_u8(quarters_[0], symbols);
    for (unsigned i = 1; i < 4; ++i) {
      symbols = vsubq_u8(symbols, step);
      found = vqtbx4q_u8(found, quarters_[i], symbols);
    }
    return found;
  }

 private:
  uint8x16x4_t quarters_[4];
};

/// The two-bit fields of 32 bits, one in each byte.
inline uint8x16_t unpack_fields(std::uint32_t fields) noexcept {
  const uint8x16_t spread = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const int8x16_t shifts = {0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6};
  const uint8x16_t bytes = vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(fields)), spread);
  return vandq_u8(vshlq_u8(bytes, shifts), vdupq_n_u8(3));
}

/// The inverse: sixteen codes below 4 as 32 bits.
inline std::uint32_t pack_fields(uint8x16_t codes) noexcept {
  const int8x16_t shifts = {0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6};
  const uint8x16_t placed = vshlq_u8(codes, shifts);
  const uint8x16_t pairs = vpaddq_u8(placed, placed);
  return vgetq_lane_u32(vreinterpretq_u32_u8(vpaddq_u8(pairs, pairs)), 0);
}

}  // namespace neon
}  // namespace
