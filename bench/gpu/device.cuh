// What every trial kernel shares: the frame as device pointers, warp scans, and the digest of one tile by one warp.
#pragma once

#include <cuda_runtime.h>

#include "frame.hpp"

namespace trial {

constexpr u32 kFull = 0xffffffffu;
constexpr u32 kWarps = 8;  // one warp a tile, one CTA a chunk

enum class digest_kind { none, spec, carry };

struct frame_view {
  u32* records = nullptr;  ///< 6 words a chunk
  u8* rest = nullptr;
  u8* code = nullptr;
  u32* tails = nullptr;
  u64 tail_words = 0;  ///< decode: size of the tails; encode: capacity
  u32 tiles = 0;
  u32 chunks = 0;
};

__device__ inline u32 inclusive_scan(u32 value, u32 lane) {
#pragma unroll
  for (u32 step = 1; step < 32; step <<= 1) {
    u32 other = __shfl_up_sync(kFull, value, step);
    if (lane >= step) value += other;
  }
  return value;
}

/// Bits of `mask` from a, the others from b.
__device__ inline u32 blend(u32 a, u32 b, u32 mask) { return (a & mask) | (b & ~mask); }

__device__ inline uint2 load_once(const uint2* p) { return __ldcs(p); }
__device__ inline uint4 load_once(const uint4* p) { return __ldcs(p); }

/// Sums of one tile over the warp; the same in every lane.
struct tile_sums {
  u64 first, second;
};

// Digest of a tile, spec/codecs.md section 5, one lane = columns 2l and 2l + 1 of each of the four rows:
//   row s, lane l: 16 bytes = words x y (column 2l) and z w (column 2l + 1)
// `carry` adds whole 64-bit sums instead of folding the columns' halves apart.
template <digest_kind kKind>
class tile_digest {
 public:
  /// `column_keys`: key(0, 0..127), key(1, 0..127).
  __device__ tile_digest(const u32* column_keys, u32 lane) {
    if constexpr (kKind != digest_kind::none) {
      k0_ = reinterpret_cast<const uint4*>(column_keys)[lane];
      k1_ = reinterpret_cast<const uint4*>(column_keys)[32 + lane];
    }
  }

  __device__ void start() {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum_[i] = 0;
  }

  template <u32 kRow>
  __device__ void add(uint4 v) {
    if constexpr (kKind != digest_kind::none) {
      constexpr u32 r0 = key(0, 256 + kRow), r1 = key(1, 256 + kRow);
      constexpr int second = kKind == digest_kind::spec ? 1 : 0;
      sum_[0] += static_cast<u64>(v.x + k0_.x + r0) * (v.y + k0_.y + r0);
      sum_[second] += static_cast<u64>(v.z + k0_.z + r0) * (v.w + k0_.w + r0);
      sum_[2] += static_cast<u64>(v.x + k1_.x + r1) * (v.y + k1_.y + r1);
      sum_[2 + second] += static_cast<u64>(v.z + k1_.z + r1) * (v.w + k1_.w + r1);
    }
  }

  __device__ tile_sums finish() const {
    if constexpr (kKind == digest_kind::spec) return {fold(sum_[0], sum_[1]), fold(sum_[2], sum_[3])};
    if constexpr (kKind == digest_kind::carry) return {total(sum_[0]), total(sum_[2])};
    return {0, 0};
  }

 private:
  static __device__ u64 fold(u64 a, u64 b) {
    u32 low = __reduce_add_sync(kFull, static_cast<u32>(a) + static_cast<u32>(b));
    u32 high = __reduce_add_sync(kFull, static_cast<u32>(a >> 32) + static_cast<u32>(b >> 32));
    return static_cast<u64>(high) << 32 | low;
  }
  static __device__ u64 total(u64 a) {
    u32 low = __reduce_add_sync(kFull, static_cast<u32>(a) & 0xffff);
    u32 mid = __reduce_add_sync(kFull, static_cast<u32>(a) >> 16);
    u32 high = __reduce_add_sync(kFull, static_cast<u32>(a >> 32));
    return (static_cast<u64>(high) << 32) + (static_cast<u64>(mid) << 16) + low;
  }

  uint4 k0_, k1_;
  u64 sum_[4];
};

/// Digest of a chunk from the sums of its tiles, tile i in lane i; the same in every lane of the warp.
__device__ inline u64 chunk_digest(const tile_sums* sums, u32 first_tile, u32 tiles, u32 lane) {
  u64 hash = 0;
  if (lane < kChunkTiles && first_tile + lane < tiles) {
    tile_sums s = sums[lane];
    hash = mix(s.first ^ mix(s.second ^ mix(first_tile + lane)));
  }
#pragma unroll
  for (u32 step = 1; step < kChunkTiles; step <<= 1) hash += __shfl_xor_sync(kFull, hash, step);
  return __shfl_sync(kFull, hash, 0);
}

// ---- A tile as the record describes it ----

struct tile_place {
  u64 first = 0;  ///< tail word
  u32 words = 0;
  bool escapes = false, raw = false, inside = true;
};

/// Selects the bytes of the lengths before tile `warp` for dp4a.
struct length_mask {
  u32 low, high;
};

__device__ inline length_mask lengths_before(u32 warp) {
  return {warp >= 4 ? 0x01010101u : 0x01010101u & ((1u << 8 * warp) - 1),
          warp > 4 ? 0x01010101u & ((1u << 8 * (warp - 4)) - 1) : 0u};
}

/// `record`: lane i < 6 holds word i of the chunk's record.
__device__ inline tile_place place_of(u32 record, u32 warp, length_mask before, u64 tail_words) {
  u32 low = __shfl_sync(kFull, record, 2), high = __shfl_sync(kFull, record, 3);
  u32 lens0 = __shfl_sync(kFull, record, 4), lens1 = __shfl_sync(kFull, record, 5);
  tile_place p;
  p.words = __byte_perm(lens0, lens1, warp) & 0xff;
  p.first = (static_cast<u64>(high & 0xffff) << 32 | low) +
            __dp4a(lens0, before.low, __dp4a(lens1, before.high, 0u));
  p.escapes = high >> (16 + warp) & 1;
  p.raw = high >> (24 + warp) & 1;
  p.inside = p.first + p.words <= tail_words;
  if (!p.inside) p.words = 0;
  return p;
}

}  // namespace trial
