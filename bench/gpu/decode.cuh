// The decoding kernel of both codecs.
//
// Grid: as many CTAs of 8 warps as fit; CTA b takes chunks b, b + grid, ...; warp w decodes tile w of the
// chunk. The planes, the first 32 tail words and the record of the next chunk are loaded before this chunk is
// decoded.
//
// A lane owns 8 consecutive values of each sub-block s:
//   rest   8 bytes at 256 s + 8 l of the tile         code   one word of 8 (rank) or 16 (top16) bytes at its
//   multiple of l out    16 bytes at 512 s + 16 l of the tile       record lane i < 6 holds word i, broadcast
//   by shuffles
// Shared: the codec's tables | stage[8 warps] of tail words | sums and verdicts of the tiles [2][8]
#pragma once

#include "device.cuh"

namespace trial {

/// Rotated exponents and rest bytes of four values to two words of BF16.
__device__ inline uint2 assemble(u32 exponents, u32 rest) {
  const u32 high = blend(exponents, rest, kMasks.low_seven), low = blend(rest, exponents, kMasks.low_seven);
  return {__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362)};
}

__device__ inline u32 rotate_symbols(u32 e) {
  return (e >> 1 & 0x7f7f7f7fu) | (e << 7 & 0x80808080u);
}

/// What a warp loads for one tile ahead of its use.
template <class Code>
struct tile_ahead {
  uint2 rest[4];
  Code code;
  u32 tail;
  u32 info;
};

template <class Code>
__device__ inline void load_ahead(tile_ahead<Code>& a, const frame_view& f, u32 tile, u32 record, u32 warp,
                                  const length_mask& before, u32 lane) {
  const tile_place place = place_of(record, warp, before, f.tail_words);
  a.info = place.info;
  if (tile >= f.tiles) return;
  const uint2* rest = reinterpret_cast<const uint2*>(f.rest + static_cast<u64>(tile) * kTileValues) + lane;
#pragma unroll
  for (u32 s = 0; s < 4; ++s) a.rest[s] = load_once(rest + 32 * s);
  a.code =
      load_once(reinterpret_cast<const Code*>(f.code + static_cast<u64>(tile) * (32 * sizeof(Code))) + lane);
  a.tail = lane < place.words() ? f.tails[place.first + lane] : 0;
}

/// Verdicts of one chunk's tiles. Warps of a CTA drift apart by at most 11 chunks (see `ring_turns`).
struct verdict_slot {
  tile_sums sums[kWarps];
  u32 good[kWarps];
  u32 arrived;  ///< tiles since the kernel began
};

// In turn r the warp r % 8 first waits for the chunk of turn r - kLag, which the others left long ago, and
// checks it. So no warp is more than kLag + 7 turns ahead of the slowest, and a slot that is kSlots turns old
// is free.
constexpr u32 kLag = 4, kSlots = 16;

__device__ inline void report(verdict_slot& slot, u32 warp, u32 lane, const tile_sums& sums, bool good) {
  if (lane != 0) return;
  slot.sums[warp] = sums;
  slot.good[warp] = good;
  count_up(slot.arrived);
}

/// `status[chunk]`: 1 good, 2 not of the format, 3 digest differs.
__device__ inline void check_chunk(verdict_slot& slot, u32 turn, const frame_view& f, u32* status, u32 lane) {
  const u32 chunk = blockIdx.x + turn * gridDim.x;
  const u32 record = lane < 2 ? f.records[6 * static_cast<u64>(chunk) + lane] : 0;
  wait_for(slot.arrived, kWarps * (turn / kSlots + 1));
  const u64 now = chunk_digest(slot.sums, kChunkTiles * chunk, f.tiles, lane);
  const u64 want = static_cast<u64>(__shfl_sync(kFull, record, 1)) << 32 | __shfl_sync(kFull, record, 0);
  const bool good = __all_sync(kFull, lane >= kWarps || slot.good[lane] != 0);
  if (lane == 0) status[chunk] = !good ? 2 : now == want ? 1 : 3;
}

enum class decode_work { all, pattern_only };

template <class Codec, u32 kCtas, digest_kind kDigest, decode_work kWork>
__global__ void __launch_bounds__(256, kCtas)
    decode_kernel(frame_view f, typename Codec::entries e, const u32* column_keys, uint4* out, u32* status) {
  __shared__ typename Codec::tables tables;
  __shared__ u32 stage[kWarps][Codec::kStageWords];
  __shared__ length_mask before[kWarps];
  __shared__ uint4 keys[64];
  __shared__ verdict_slot slots[kDigest == digest_kind::none ? 1 : kSlots];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  Codec::fill(tables, threadIdx.x);
  reinterpret_cast<u32*>(keys)[threadIdx.x] = column_keys[threadIdx.x];
  if (threadIdx.x < kWarps) before[threadIdx.x] = lengths_before(threadIdx.x);
  if (threadIdx.x < sizeof slots / sizeof slots[0]) slots[threadIdx.x].arrived = 0;
  __syncthreads();
  auto record_of = [&](u32 chunk) {
    return chunk < f.chunks && lane < 6 ? f.records[6 * static_cast<u64>(chunk) + lane] : 0;
  };

  u32 chunk = blockIdx.x, turn = 0;
  if (chunk >= f.chunks) return;
  u32 record = record_of(chunk), next_record = record_of(chunk + gridDim.x);
  tile_ahead<typename Codec::code_word> ahead;
  load_ahead(ahead, f, kChunkTiles * chunk + warp, record, warp, before[warp], lane);
  for (; chunk < f.chunks; chunk += gridDim.x, ++turn) {
    const u32 tile = kChunkTiles * chunk + warp;
    const tile_ahead<typename Codec::code_word> now = ahead;
    const u32 my_record = record;
    record = next_record;
    if (chunk + gridDim.x < f.chunks) {
      load_ahead(ahead, f, tile + kChunkTiles * gridDim.x, record, warp, before[warp], lane);
    }
    next_record = record_of(chunk + 2 * gridDim.x);

    tile_place place{0, now.info};
    bool ok = !place.outside();
    tile_sums sums{0, 0};
    if (tile < f.tiles) {
      uint4* to = out + static_cast<u64>(tile) * 128 + lane;
      if constexpr (kWork == decode_work::pattern_only) {
#pragma unroll
        for (u32 s = 0; s < 4; ++s)
          to[32 * s] = {now.rest[s].x, now.rest[s].y ^ now.code.x, now.tail, now.code.y};
        continue;
      }
      u32* tail = stage[warp];
      tail[lane] = now.tail;
      if (place.words() > 32) {
        place = place_of(my_record, warp, before[warp], f.tail_words);
#pragma unroll 1
        for (u32 i = lane + 32; i < place.words(); i += 32) tail[i] = f.tails[place.first + i];
      }
      __syncwarp();
      uint4 v[4];
      ok = Codec::decode(tables, e, tail, place, now.code, now.rest, v, lane) && ok;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) to[32 * s] = v[s];
      tile_digest<kDigest> digest;
      digest.start(keys, lane);
      digest.template add<0>(v[0]);
      digest.template add<1>(v[1]);
      digest.template add<2>(v[2]);
      digest.template add<3>(v[3]);
      sums = digest.finish();
    }
    if constexpr (kDigest != digest_kind::none) {
      report(slots[turn % kSlots], warp, lane, sums, ok);
      if (turn % kWarps == warp && turn >= kLag)
        check_chunk(slots[(turn - kLag) % kSlots], turn - kLag, f, status, lane);
    } else if (!ok && lane == 0) {
      status[chunk] = 2;
    }
    __syncwarp();
  }
  if constexpr (kDigest != digest_kind::none) {
    if (warp < kLag && turn + warp >= kLag) {
      const u32 last = turn + warp - kLag;
      check_chunk(slots[last % kSlots], last, f, status, lane);
    }
  }
}

}  // namespace trial
