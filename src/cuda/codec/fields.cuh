// Field planes as a lane holds them: 32 fields of 1, 2 or 4 bits, sub-block s at bits [8 w s, 8 w (s + 1)),
// in `w` words; and groups of four fields as four bytes.
#pragma once

#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

/// Four fields of `kWidth` bits to the low bits of four bytes, and back.
template <u32 kWidth>
TERSOR_DEVICE u32 spread(u32 x) {
  if constexpr (kWidth == 4) {
    x = (x | x << 8) & 0x00ff00ff;
    return (x | x << 4) & 0x0f0f0f0f;
  } else if constexpr (kWidth == 2) {
    x = (x | x << 12) & 0x000f000f;
    return (x | x << 6) & 0x03030303;
  } else {
    return (x * 0x00204081) & 0x01010101;
  }
}

template <u32 kWidth>
TERSOR_DEVICE u32 gather(u32 x) {
  if constexpr (kWidth == 4) {
    x = (x | x >> 4) & 0x00ff00ff;
    return (x | x >> 8) & 0xffff;
  } else if constexpr (kWidth == 2) {
    x = (x | x >> 6) & 0x000f000f;
    return (x | x >> 12) & 0xff;
  } else {
    x = (x | x >> 7) & 0x00030003;
    return (x | x >> 14) & 0xf;
  }
}

template <u32 kWidth>
struct word_of;
template <>
struct word_of<1> {
  using type = u32;
};
template <>
struct word_of<2> {
  using type = uint2;
};
template <>
struct word_of<4> {
  using type = uint4;
};

/// A lane's part of a field plane. Indices are constants after unrolling, so it lives in registers.
template <u32 kWidth>
struct lane_plane {
  using word = typename word_of<kWidth>::type;
  u32 w[kWidth] = {};

  lane_plane() = default;
  TERSOR_DEVICE explicit lane_plane(const word& x) {
    if constexpr (kWidth == 1) {
      w[0] = x;
    } else {
      w[0] = x.x;
      w[1] = x.y;
    }
    if constexpr (kWidth == 4) {
      w[2] = x.z;
      w[3] = x.w;
    }
  }
  [[nodiscard]] TERSOR_DEVICE word packed() const {
    if constexpr (kWidth == 1) {
      return w[0];
    } else if constexpr (kWidth == 2) {
      return {w[0], w[1]};
    } else {
      return {w[0], w[1], w[2], w[3]};
    }
  }

  /// Fields of values 4 h .. 4 h + 3 of sub-block s, packed.
  [[nodiscard]] TERSOR_DEVICE u32 four(u32 s, u32 h) const {
    const u32 bit = kWidth * (8 * s + 4 * h);
    return w[bit / 32] >> (bit % 32) & ((1u << 4 * kWidth) - 1);
  }
  TERSOR_DEVICE void put_four(u32 s, u32 h, u32 fields) {
    const u32 bit = kWidth * (8 * s + 4 * h);
    w[bit / 32] |= fields << (bit % 32);
  }
  /// The eight fields of sub-block s, packed.
  [[nodiscard]] TERSOR_DEVICE u32 eight(u32 s) const {
    if constexpr (kWidth == 4) return w[s];
    const u32 bit = 8 * kWidth * s;
    return w[bit / 32] >> (bit % 32) & ((1u << (8 * kWidth % 32)) - 1);
  }
};

/// Writes a lane's part of the plane of a tile.
template <u32 kWidth>
TERSOR_DEVICE void store_plane(u8* plane, u32 tile, u32 lane, const lane_plane<kWidth>& x) {
  using word = typename word_of<kWidth>::type;
  ptx::store(reinterpret_cast<word*>(plane + static_cast<u64>(tile) * (128 * kWidth)) + lane, x.packed());
}

}  // namespace tersor::cuda
