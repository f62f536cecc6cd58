// What every trial kernel shares: the frame as device pointers, warp scans, and the digest of one tile by one
// warp.
#pragma once

#include <cuda/atomic>
#include <cuda/ptx>

#include <cuda_runtime.h>

#include "frame.hpp"

namespace trial {

constexpr u32 kFull = 0xffffffffu;
constexpr u32 kWarps = 8;  // one warp a tile, one CTA a chunk

/// none; the specification's two sums; the same with carries between columns; one sum only.
enum class digest_kind { none, spec, carry, single };

struct frame_view {
  u32* records = nullptr;  ///< 6 words a chunk
  u8* rest = nullptr;
  u8* code = nullptr;
  u32* tails = nullptr;
  u64 tail_words = 0;  ///< decode: size of the tails; encode: capacity
  u32 tiles = 0;
  u32 chunks = 0;
};

__device__ inline u32 inclusive_scan(u32 value) {
#pragma unroll
  for (u32 step = 1; step < 32; step <<= 1) {
    bool inside = false;
    const u32 other = cuda::ptx::shfl_sync_up(value, inside, step, 0u, kFull);
    if (inside) value += other;
  }
  return value;
}

/// PRMT with the selector as it is; `__byte_perm` spends an instruction on clearing the sign bits of its
/// nibbles.
__device__ inline u32 select_bytes(u32 a, u32 b, u32 selector) {
  return cuda::ptx::prmt(a, b, selector);
}

// Masks that the compiler cannot see through: with a literal it splits the one LOP3 of `blend` into two.
struct opaque_masks {
  u32 low_seven = 0x7f7f7f7fu;
  u32 odd_fields = 0x00cccc00u, odd_pairs = 0x00f0f000u, high_byte = 0x00ff0000u;
  u32 odd_nibbles = 0xf0f0f0f0u, odd_bytes = 0xff00ff00u;
};
__constant__ opaque_masks kMasks;

/// Bits of `mask` from a, the others from b.
__device__ inline u32 blend(u32 a, u32 b, u32 mask) {
  return (a & mask) | (b & ~mask);
}

__device__ inline uint2 load_once(const uint2* p) {
  return __ldcs(p);
}
__device__ inline uint4 load_once(const uint4* p) {
  return __ldcs(p);
}

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
  /// `keys` in shared memory: key(0, 0..127), key(1, 0..127). A lane holds its eight from here on.
  __device__ void start(const uint4* keys, u32 lane) {
    if constexpr (kKind != digest_kind::none) {
      k0_ = keys[lane];
      k1_ = keys[32 + lane];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) sum_[i] = 0;
  }

  template <u32 kRow>
  __device__ void add(uint4 v) {
    if constexpr (kKind != digest_kind::none) {
      constexpr u32 r0 = key(0, 256 + kRow), r1 = key(1, 256 + kRow);
      constexpr int second = kKind == digest_kind::carry ? 0 : 1;
      sum_[0] += static_cast<u64>(v.x + k0_.x + r0) * (v.y + k0_.y + r0);
      sum_[second] += static_cast<u64>(v.z + k0_.z + r0) * (v.w + k0_.w + r0);
      if constexpr (kKind != digest_kind::single) {
        sum_[2] += static_cast<u64>(v.x + k1_.x + r1) * (v.y + k1_.y + r1);
        sum_[2 + second] += static_cast<u64>(v.z + k1_.z + r1) * (v.w + k1_.w + r1);
      }
    }
  }

  __device__ tile_sums finish() const {
    if constexpr (kKind == digest_kind::spec) return {fold(sum_[0], sum_[1]), fold(sum_[2], sum_[3])};
    if constexpr (kKind == digest_kind::carry) return {total(sum_[0]), total(sum_[2])};
    if constexpr (kKind == digest_kind::single) return {fold(sum_[0], sum_[1]), 0};
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

// Counters in shared memory that order what the warps of a CTA tell each other.
using cta_counter = cuda::atomic_ref<u32, cuda::thread_scope_block>;

/// Lane 0, after `__syncwarp`: all that the warp wrote before is seen by whoever sees the count.
__device__ inline void count_up(u32& counter) {
  cta_counter(counter).fetch_add(1, cuda::memory_order_release);
}

__device__ inline void wait_for(u32& counter, u32 wanted) {
  while (cta_counter(counter).load(cuda::memory_order_acquire) < wanted) {
  }
}

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

/// Ones over the lengths before a tile, for dp4a.
struct length_mask {
  u32 low, high;
};

__device__ inline length_mask lengths_before(u32 warp) {
  return {warp >= 4 ? 0x01010101u : 0x01010101u & ((1u << 8 * warp) - 1),
          warp > 4 ? 0x01010101u & ((1u << 8 * (warp - 4)) - 1) : 0u};
}

/// Where a tile's tail lies, and in `info`: bits 0-7 words | 8 has escapes | 16 is raw | 24 leaves the tails
/// section.
struct tile_place {
  u64 first;
  u32 info;
  [[nodiscard]] __device__ u32 words() const { return info & 0xff; }
  [[nodiscard]] __device__ bool escapes() const { return info >> 8 & 1; }
  [[nodiscard]] __device__ bool raw() const { return info >> 16 & 1; }
  [[nodiscard]] __device__ bool outside() const { return info >> 24 & 1; }
};

/// `record`: lane i < 6 holds word i of the chunk's record.
__device__ inline tile_place place_of(u32 record, u32 warp, length_mask before, u64 tail_words) {
  const u32 low = __shfl_sync(kFull, record, 2), high = __shfl_sync(kFull, record, 3);
  const u32 lens0 = __shfl_sync(kFull, record, 4), lens1 = __shfl_sync(kFull, record, 5);
  tile_place p;
  const u32 words = __byte_perm(lens0, lens1, warp) & 0xff;
  p.first = (static_cast<u64>(high & 0xffff) << 32 | low) +
            __dp4a(lens0, before.low, __dp4a(lens1, before.high, 0u));
  p.info = words | (high >> (16 + warp) & 0x101) << 8;
  if (p.first + words > tail_words) p.info = 1u << 24;
  return p;
}

}  // namespace trial
