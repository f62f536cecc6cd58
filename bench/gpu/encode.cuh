// The encoding kernel of both codecs: one pass, one launch.
//
// Grid: as many CTAs of 8 warps as fit; CTA b takes chunks b, b + grid, ...; warp w encodes tile w of the chunk; a lane
// owns 8 consecutive values of each sub-block. Each warp builds its tail in shared memory; the CTA places the chunk with
// one atomicAdd, by one warp in turns, and copies it out one turn later, so that one barrier a chunk is enough and the
// atomic's time is hidden.
//
// Shared: the codec's table | stage[2][8 warps] | boards[2]: sums, lengths and flags of the tiles | digest keys
#pragma once

#include "device.cuh"

namespace trial {

/// The encoder's counters; all zero before the first launch, and zero again after each.
struct encode_state {
  unsigned long long words = 0;  ///< tail words placed so far
  u32 done = 0;                  ///< CTAs that finished
  u32 padding = 0;
};

__device__ inline void or_word(u32* p, u32 value) {
  if (value) atomicOr(p, value);
}

__device__ inline void or_bits(u32* words, u32 bit, u32 value) {
  atomicOr(words + (bit >> 5), value << (bit & 31));
  or_word(words + (bit >> 5) + 1, __funnelshift_l(value, 0u, bit));
}

/// A tile's tail in shared memory and what the record says of it.
struct built_tail {
  u32 words;
  bool escapes, raw;
};

/// Stores the rest bytes of eight values.
__device__ inline void store_rest(const frame_view& f, u32 tile, u32 row, u32 lane, uint4 x) {
  uint2 rest;
  rest.x = blend(__byte_perm(x.x, x.y, 0x6420), __byte_perm(x.x, x.y, 0x7531), kMasks.low_seven);
  rest.y = blend(__byte_perm(x.z, x.w, 0x6420), __byte_perm(x.z, x.w, 0x7531), kMasks.low_seven);
  reinterpret_cast<uint2*>(f.rest + static_cast<u64>(tile) * kTileValues)[32 * row + lane] = rest;
}

/// The symbols of four values in bytes.
__device__ inline u32 symbols_of(u32 a, u32 b) {
  return (__byte_perm(a, b, 0x7531) << 1 & 0xfefefefeu) | (__byte_perm(a, b, 0x6420) >> 7 & 0x01010101u);
}

/// Four nibbles, one a byte, to 16 bits.
__device__ inline u32 pack_nibbles(u32 x) {
  x = (x | x >> 4) & 0x00ff00ff;
  return (x | x >> 8) & 0xffff;
}

/// What the warps of a CTA tell each other about one chunk.
struct chunk_board {
  tile_sums sums[kWarps];
  u32 info[kWarps];  ///< words | escapes << 8 | raw << 9
  u64 first;         ///< where the chunk's tails go
};

/// The chunk's record, written by one warp: lane i < 6 holds word i.
__device__ inline void write_record(const frame_view& f, u32 chunk, const chunk_board& board, u64 digest, u64 first,
                                    u32 lane) {
  const u32 info = lane < kWarps ? board.info[lane] : 0;
  const u32 escapes = __ballot_sync(kFull, info >> 8 & 1), raw = __ballot_sync(kFull, info >> 9 & 1);
  const u32 length = (info & 0xff) << (8 * (lane & 3));
  const u32 lens0 = __reduce_or_sync(kFull, lane < 4 ? length : 0), lens1 = __reduce_or_sync(kFull, lane < 4 ? 0 : length);
  const u32 words[6] = {static_cast<u32>(digest), static_cast<u32>(digest >> 32), static_cast<u32>(first),
                        static_cast<u32>(first >> 32) | escapes << 16 | raw << 24, lens0, lens1};
  u32 mine = 0;
#pragma unroll
  for (u32 i = 0; i < 6; ++i) mine = lane == i ? words[i] : mine;
  if (lane < 6) f.records[6 * static_cast<u64>(chunk) + lane] = mine;
}

/// Thread 0 of each CTA, at its end: the last one publishes the size and clears the counters for the next launch.
__device__ inline void finish_launch(encode_state* state, u64* tail_words) {
  __threadfence();
  if (atomicAdd(&state->done, 1u) != gridDim.x - 1) return;
  __threadfence();
  *tail_words = atomicExch(&state->words, 0ull);
  state->done = 0;
}

template <class Codec, u32 kCtas, digest_kind kDigest, bool kAhead>
__global__ void __launch_bounds__(256, kCtas)
    encode_kernel(const uint4* in, frame_view f, const typename Codec::table_entry* table_in, const u32* column_keys,
                  encode_state* state, u64* tail_words) {
  __shared__ typename Codec::table_entry table[256];
  __shared__ u32 stage[2][kWarps][Codec::kStageWords];
  __shared__ chunk_board boards[2];
  __shared__ uint4 keys[64];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  table[threadIdx.x] = table_in[threadIdx.x];
  reinterpret_cast<u32*>(keys)[threadIdx.x] = column_keys[threadIdx.x];
  __syncthreads();
  uint4 next[4];
  auto load = [&](u32 tile) {
    const uint4* from = in + static_cast<u64>(tile) * 128 + lane;
    if (tile < f.tiles) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) next[s] = load_once(from + 32 * s);
    }
  };
  if constexpr (kAhead) load(kChunkTiles * blockIdx.x + warp);
  u32 turn = 0, leader = 0, old_words = 0, old_offset = 0;
  auto copy_out = [&](u32 from) {
    u32* to = f.tails + boards[from].first + old_offset;
    for (u32 i = lane; i < old_words; i += 32) to[i] = stage[from][warp][i];
  };
  for (u32 chunk = blockIdx.x; chunk < f.chunks; chunk += gridDim.x, turn ^= 1, leader = (leader + 1) % kWarps) {
    const u32 tile = kChunkTiles * chunk + warp;
    if constexpr (!kAhead) load(tile);
    const uint4 x[4] = {next[0], next[1], next[2], next[3]};
    if (kAhead && chunk + gridDim.x < f.chunks) load(tile + kChunkTiles * gridDim.x);
    chunk_board& board = boards[turn];
    built_tail built{0, false, false};
    tile_sums sums{0, 0};
    if (tile < f.tiles) {
      tile_digest<kDigest> digest;
      digest.start(keys, lane);
      digest.template add<0>(x[0]);
      digest.template add<1>(x[1]);
      digest.template add<2>(x[2]);
      digest.template add<3>(x[3]);
      sums = digest.finish();
      built = Codec::encode_tile(stage[turn][warp], table, x, in + static_cast<u64>(tile) * 128, f, tile, lane);
    }
    if (lane == 0) {
      board.info[warp] = built.words | static_cast<u32>(built.escapes) << 8 | static_cast<u32>(built.raw) << 9;
      if constexpr (kDigest != digest_kind::none) board.sums[warp] = sums;
    }
    __syncthreads();
    const u32 length = lane < kWarps ? board.info[lane] & 0xff : 0;
    const u32 offset = __reduce_add_sync(kFull, lane < warp ? length : 0);
    u64 first = 0;
    if (warp == leader) {
      const u32 total = __reduce_add_sync(kFull, length);
      if (lane == 0) first = atomicAdd(&state->words, static_cast<unsigned long long>(total));
    }
    copy_out(turn ^ 1);
    if (warp == leader) {
      u64 hash = 0;
      if constexpr (kDigest != digest_kind::none) hash = chunk_digest(board.sums, kChunkTiles * chunk, f.tiles, lane);
      first = __shfl_sync(kFull, first, 0);
      if (lane == 0) board.first = first;
      write_record(f, chunk, board, hash, first, lane);
    }
    old_words = built.words;
    old_offset = offset;
    __syncwarp();
  }
  __syncthreads();
  copy_out(turn ^ 1);
  if (threadIdx.x == 0) finish_launch(state, tail_words);
}

}  // namespace trial
