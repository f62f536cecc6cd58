// Small steps that several kernels take.
#pragma once

#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

TERSOR_DEVICE u32 inclusive_scan(u32 value) {
#pragma unroll
  for (u32 step = 1; step < 32; step <<= 1) value = ptx::add_from_below(value, step);
  return value;
}

/// 32 bits of a stream from any bit on.
TERSOR_DEVICE u32 bits_at(const u32* words, u32 bit) {
  return ptx::funnel_right(words[bit >> 5], words[(bit >> 5) + 1], bit);
}

/// Keeps the low `bits` (0..32) bits.
TERSOR_DEVICE u32 keep_low(u32 value, u32 bits) {
  return value & ~ptx::funnel_left_clamped(0u, ptx::kFull, bits);
}

/// 2-bit fields that are 3, as their lowest bit.
TERSOR_DEVICE u32 threes(u32 fields) {
  return fields & (fields >> 1) & 0x55555555u;
}

/// Nibbles that are 15, as their lowest bit.
TERSOR_DEVICE u32 fifteens(u32 codes) {
  const u32 pairs = codes & codes >> 1;
  return pairs & pairs >> 2 & 0x11111111u;
}

/// ORs `value` into a bit string in shared memory.
TERSOR_DEVICE void or_bits(u32* words, u32 bit, u32 value) {
  ptx::shared_or(words + (bit >> 5), value << (bit & 31));
  ptx::shared_or_nonzero(words + (bit >> 5) + 1, ptx::funnel_left(value, 0u, bit));
}

}  // namespace tersor::cuda
