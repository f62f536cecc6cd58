// Raw tiles (spec/codecs.md section 4.2): the low bits of a symbol in the code plane, the others in field
// planes of 4, 2 and 1 bits in the tail.
#pragma once

#include "cuda/codec/fields.cuh"

namespace tersor::cuda {

/// Width of the next plane when `bits` are left.
constexpr u32 plane_width(u32 bits) {
  return bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

/// The planes of `kBits` bits that begin at bit `kShift` of a symbol, first plane at word 0 of `tail`.
template <class Lane, u32 kBits, u32 kShift>
TERSOR_DEVICE u32 raw_high_bits(const u32* tail, u32 lane, u32 s, u32 h) {
  if constexpr (kBits == 0) {
    return 0;
  } else {
    constexpr u32 width = plane_width(kBits);
    const u32 bit = width * (8 * s + 4 * h);
    const u32 word = tail[width * lane + bit / 32];
    const u32 fields = spread<width>(word >> (bit % 32) & ((1u << 4 * width) - 1));
    return fields << kShift |
           raw_high_bits<Lane, kBits - width, kShift + width>(tail + 32 * width, lane, s, h);
  }
}

template <class Lane, u32 kCodeWidth>
TERSOR_DEVICE void decode_raw(const u32* tail, const lane_plane<kCodeWidth>& code,
                              const typename Lane::rest& rest, typename Lane::row (&out)[4], u32 lane) {
#pragma unroll
  for (u32 s = 0; s < 4; ++s) {
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
      const u32 symbols = spread<kCodeWidth>(code.four(s, h)) |
                          raw_high_bits<Lane, Lane::kSymbolBits - kCodeWidth, kCodeWidth>(tail, lane, s, h);
      Lane::join(Lane::place(symbols), rest, s, h, out[s]);
    }
  }
}

/// Fields of bits [kShift, kShift + width) of all symbols of a lane, and of the planes after it.
template <class Lane, u32 kBits, u32 kShift>
TERSOR_DEVICE void write_raw_planes(u32* tail, const typename Lane::row (&x)[4], u32 lane) {
  if constexpr (kBits != 0) {
    constexpr u32 width = plane_width(kBits);
    lane_plane<width> plane;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
#pragma unroll
      for (u32 h = 0; h < 2; ++h)
        plane.put_four(s, h,
                       gather<width>(Lane::symbols(x[s], h) >> kShift & (0x01010101u * ((1u << width) - 1))));
    }
#pragma unroll
    for (u32 i = 0; i < width; ++i) tail[width * lane + i] = plane.w[i];
    write_raw_planes<Lane, kBits - width, kShift + width>(tail + 32 * width, x, lane);
  }
}

/// Writes the tail and returns the code plane. Values that do not exist are zero in `x`.
template <class Lane, u32 kCodeWidth>
TERSOR_DEVICE lane_plane<kCodeWidth> encode_raw(u32* tail, const typename Lane::row (&x)[4], u32 lane) {
  lane_plane<kCodeWidth> code;
#pragma unroll
  for (u32 s = 0; s < 4; ++s) {
#pragma unroll
    for (u32 h = 0; h < 2; ++h)
      code.put_four(s, h,
                    gather<kCodeWidth>(Lane::symbols(x[s], h) & (0x01010101u * ((1u << kCodeWidth) - 1))));
  }
  write_raw_planes<Lane, Lane::kSymbolBits - kCodeWidth, kCodeWidth>(tail, x, lane);
  return code;
}

}  // namespace tersor::cuda
