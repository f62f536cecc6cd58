// The digest of spec/codecs.md section 5 as a warp computes it.
//
// Lane l holds columns 2 l and 2 l + 1 of each row (values of two bytes: 16 bytes a row) or column l (values
// of one byte: 8 bytes a row).
#pragma once

#include "codec/digest.hpp"
#include "cuda/codec/launch.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

using codec_detail::chain_next;
using codec_detail::chain_start;
using codec_detail::digest_domain;
using codec_detail::nh_key;

/// Sums of one tile over the warp; the same in every lane.
struct tile_sums {
  u64 first = 0, second = 0;
};

/// Column keys of both sums in shared memory: `words[0..]` of sum 0, then of sum 1.
template <u32 kValueBytes>
struct digest_keys {
  static constexpr u32 kColumns = 64 * kValueBytes;
  alignas(16) u32 words[2 * kColumns];

  TERSOR_DEVICE void fill(u32 thread) {
    if (thread < 2 * kColumns) words[thread] = nh_key(thread / kColumns, thread % kColumns);
  }
};

TERSOR_DEVICE tile_sums fold(u64 a0, u64 b0, u64 a1, u64 b1) {
  const u32 low0 = ptx::reduce_add(static_cast<u32>(a0) + static_cast<u32>(b0));
  const u32 high0 = ptx::reduce_add(static_cast<u32>(a0 >> 32) + static_cast<u32>(b0 >> 32));
  const u32 low1 = ptx::reduce_add(static_cast<u32>(a1) + static_cast<u32>(b1));
  const u32 high1 = ptx::reduce_add(static_cast<u32>(a1 >> 32) + static_cast<u32>(b1 >> 32));
  return {static_cast<u64>(high0) << 32 | low0, static_cast<u64>(high1) << 32 | low1};
}

template <u32 kRow>
TERSOR_DEVICE void add_product(u64& sum, u32 a, u32 b, u32 key_a, u32 key_b, u32 row_key) {
  sum += static_cast<u64>(a + key_a + row_key) * (b + key_b + row_key);
}

template <u32 kValueBytes>
class tile_digest;

template <>
class tile_digest<2> {
 public:
  TERSOR_DEVICE tile_digest(const digest_keys<2>& keys, u32 lane)
      : k0_(reinterpret_cast<const uint4*>(keys.words)[lane]),
        k1_(reinterpret_cast<const uint4*>(keys.words)[32 + lane]) {}

  template <u32 kRow>
  TERSOR_DEVICE void add(const uint4& v) {
    constexpr u32 r0 = nh_key(0, codec_detail::kRowKey + kRow), r1 = nh_key(1, codec_detail::kRowKey + kRow);
    add_product<kRow>(a0_, v.x, v.y, k0_.x, k0_.y, r0);
    add_product<kRow>(b0_, v.z, v.w, k0_.z, k0_.w, r0);
    add_product<kRow>(a1_, v.x, v.y, k1_.x, k1_.y, r1);
    add_product<kRow>(b1_, v.z, v.w, k1_.z, k1_.w, r1);
  }
  [[nodiscard]] TERSOR_DEVICE tile_sums finish() const { return fold(a0_, b0_, a1_, b1_); }

 private:
  uint4 k0_, k1_;
  u64 a0_ = 0, b0_ = 0, a1_ = 0, b1_ = 0;
};

template <>
class tile_digest<1> {
 public:
  TERSOR_DEVICE tile_digest(const digest_keys<1>& keys, u32 lane)
      : k0_(reinterpret_cast<const uint2*>(keys.words)[lane]),
        k1_(reinterpret_cast<const uint2*>(keys.words)[32 + lane]) {}

  template <u32 kRow>
  TERSOR_DEVICE void add(const uint2& v) {
    constexpr u32 r0 = nh_key(0, codec_detail::kRowKey + kRow), r1 = nh_key(1, codec_detail::kRowKey + kRow);
    add_product<kRow>(a0_, v.x, v.y, k0_.x, k0_.y, r0);
    add_product<kRow>(a1_, v.x, v.y, k1_.x, k1_.y, r1);
  }
  [[nodiscard]] TERSOR_DEVICE tile_sums finish() const { return fold(a0_, 0, a1_, 0); }

 private:
  uint2 k0_, k1_;
  u64 a0_ = 0, a1_ = 0;
};

template <u32 kValueBytes, class Row>
TERSOR_DEVICE tile_sums digest_of(const digest_keys<kValueBytes>& keys, const Row (&rows)[4], u32 lane) {
  tile_digest<kValueBytes> digest(keys, lane);
  digest.template add<0>(rows[0]);
  digest.template add<1>(rows[1]);
  digest.template add<2>(rows[2]);
  digest.template add<3>(rows[3]);
  return digest.finish();
}

/// Digest of a chunk from the sums of its tiles; the same in every lane of the warp.
TERSOR_DEVICE u64 chunk_digest(const tile_sums* sums, u32 first_tile, u32 n_tiles, u32 lane) {
  u64 hash = 0;
  if (lane < kWarps && first_tile + lane < n_tiles) {
    const tile_sums s = sums[lane];
    hash = chain_next(chain_next(chain_start(digest_domain::data, first_tile + lane), s.second), s.first);
  }
  for (u32 step = 1; step < kWarps; step <<= 1) hash += ptx::shfl_xor(hash, step);
  return ptx::shfl(hash, 0);
}

/// Hash of a chunk record for the index digest.
TERSOR_DEVICE u64 record_hash(u32 chunk, u64 digest, u64 place, u64 lengths) {
  return chain_next(chain_next(chain_next(chain_start(digest_domain::index, chunk), digest), place), lengths);
}

/// Digest of a header, one word a lane (lanes 0..15); the same in every lane.
TERSOR_DEVICE u64 header_digest(u64 word, u32 lane) {
  u64 hash = 0;
  if (lane < kHeaderWords && lane != kHeaderDigestWord)
    hash = chain_next(chain_start(digest_domain::frame_header, lane), word);
  if (lane == kHeaderDigestWord) hash = chain_next(chain_start(digest_domain::frame_header, lane), 0);
  for (u32 step = 1; step < kHeaderWords; step <<= 1) hash += ptx::shfl_xor(hash, step);
  return ptx::shfl(hash, 0);
}

}  // namespace tersor::cuda
