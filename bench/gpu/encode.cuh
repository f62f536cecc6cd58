// The encoding kernel of both codecs: one pass, one launch.
//
// Grid: as many CTAs of 8 warps as fit; CTA b takes chunks b, b + grid, ...; warp w encodes tile w of the
// chunk; a lane owns 8 consecutive values of each sub-block and loads those of its next tile ahead. Each warp
// builds its tail in shared memory; one warp a chunk, in turns, places it with an atomicAdd and writes the
// record and the eight tails. There is no barrier: counters in shared memory say which tiles are built and
// which slots are free.
//
// Shared: the codec's table | stage[4 turns][8 warps] | slots[4]: sums, lengths and flags of the tiles |
// digest keys
#pragma once

#include "device.cuh"

namespace trial {

/// The encoder's counters; all zero before the first launch, and zero again after each.
struct encode_state {
  unsigned long long words = 0;  ///< tail words placed so far
  unsigned long long index = 0;  ///< sum of the records' hashes so far
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

/// What the warps of a CTA tell each other about one chunk. A slot serves turn t, t + kTurns, ...
struct chunk_slot {
  tile_sums sums[kWarps];
  u32 info[kWarps];  ///< words | escapes << 8 | raw << 9
  u32 arrived;       ///< tiles built since the kernel began
  u32 finished;      ///< chunks finished since the kernel began
};

// In turn t the warp t % 8 finishes the chunk of turn t - kBehind: it asks for the place before it encodes
// its own tile, and writes record and tails after it, so that the atomic's time is hidden. A warp that is
// kTurns ahead waits for the slot. kBehind < kTurns keeps this free of circles.
constexpr u32 kBehind = 2, kTurns = 4;

/// The chunk's record, written by one warp: lane i < 6 holds word i. Its hash goes to the index digest.
__device__ inline void write_record(const frame_view& f, u32 chunk, const chunk_slot& slot, u64 digest,
                                    u64 first, encode_state* state, u32 lane) {
  const u32 info = lane < kWarps ? slot.info[lane] : 0;
  const u32 escapes = __ballot_sync(kFull, info >> 8 & 1), raw = __ballot_sync(kFull, info >> 9 & 1);
  const u32 length = (info & 0xff) << (8 * (lane & 3));
  const u32 lens0 = __reduce_or_sync(kFull, lane < 4 ? length : 0),
            lens1 = __reduce_or_sync(kFull, lane < 4 ? 0 : length);
  const u64 record[3] = {digest, first | static_cast<u64>(escapes) << 48 | static_cast<u64>(raw) << 56,
                         static_cast<u64>(lens1) << 32 | lens0};
  u64 mine = 0;
#pragma unroll
  for (u32 i = 0; i < 3; ++i) mine = lane == i ? record[i] : mine;
  if (lane < 3) reinterpret_cast<u64*>(f.records)[3 * static_cast<u64>(chunk) + lane] = mine;
  if (lane == 0) atomicAdd(&state->index, static_cast<unsigned long long>(chain(1, chunk, record, 3)));
}

/// Thread 0 of each CTA, at its end: the last one completes the header, whose other fields the host has set,
/// and clears the counters for the next launch.
__device__ inline void finish_launch(encode_state* state, u64* header) {
  __threadfence();
  if (atomicAdd(&state->done, 1u) != gridDim.x - 1) return;
  __threadfence();
  header[3] = atomicExch(&state->words, 0ull);
  header[4] = atomicExch(&state->index, 0ull);
  header[5] = 0;
  header[5] = chain(2, 0, header, 16);
  state->done = 0;
}

/// Asks for the place of a chunk's tails; the answer is in lane 0.
__device__ inline u64 ask_place(const chunk_slot& slot, encode_state* state, u32 lane) {
  const u32 total = __reduce_add_sync(kFull, lane < kWarps ? slot.info[lane] & 0xff : 0);
  return lane == 0 ? atomicAdd(&state->words, static_cast<unsigned long long>(total)) : 0;
}

/// Writes a chunk's record and tails and frees its slot.
template <digest_kind kDigest, u32 kWords>
__device__ inline void finish_chunk(const frame_view& f, u32 chunk, chunk_slot& slot,
                                    const u32 (*stage)[kWords], u64 first, encode_state* state, u32 lane) {
  u64 hash = 0;
  if constexpr (kDigest != digest_kind::none)
    hash = chunk_digest(slot.sums, kChunkTiles * chunk, f.tiles, lane);
  first = __shfl_sync(kFull, first, 0);
  write_record(f, chunk, slot, hash, first, state, lane);
  u32* to = f.tails + first;
#pragma unroll 1
  for (u32 t = 0; t < kWarps; ++t) {
    const u32 words = slot.info[t] & 0xff;
    for (u32 i = lane; i < words; i += 32) to[i] = stage[t][i];
    to += words;
  }
  __syncwarp();
  if (lane == 0) count_up(slot.finished);
}

template <class Codec, u32 kCtas, digest_kind kDigest>
__global__ void __launch_bounds__(256, kCtas)
    encode_kernel(const uint4* in, frame_view f, const typename Codec::table_entry* table_in,
                  const u32* column_keys, encode_state* state, u64* header) {
  __shared__ typename Codec::table_entry table[256];
  __shared__ u32 stage[kTurns][kWarps][Codec::kStageWords];
  __shared__ chunk_slot slots[kTurns];
  __shared__ uint4 keys[64];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  table[threadIdx.x] = table_in[threadIdx.x];
  reinterpret_cast<u32*>(keys)[threadIdx.x] = column_keys[threadIdx.x];
  if (threadIdx.x < kTurns) slots[threadIdx.x].arrived = slots[threadIdx.x].finished = 0;
  __syncthreads();
  auto chunk_of = [&](u32 t) { return blockIdx.x + t * gridDim.x; };
  uint4 next[4];
  auto load_next = [&](u32 tile) {
    const uint4* from = in + static_cast<u64>(tile) * 128 + lane;
    if (tile < f.tiles) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) next[s] = load_once(from + 32 * s);
    }
  };
  u32 turn = 0;
  load_next(kChunkTiles * blockIdx.x + warp);
  for (u32 chunk = blockIdx.x; chunk < f.chunks; chunk += gridDim.x, ++turn) {
    const u32 tile = kChunkTiles * chunk + warp;
    const uint4 x[4] = {next[0], next[1], next[2], next[3]};
    if (chunk + gridDim.x < f.chunks) load_next(tile + kChunkTiles * gridDim.x);
    const bool finisher = turn % kWarps == warp && turn >= kBehind;
    const u32 old = turn - kBehind;
    u64 first = 0;
    if (finisher) {
      wait_for(slots[old % kTurns].arrived, kWarps * (old / kTurns + 1));
      first = ask_place(slots[old % kTurns], state, lane);
    }
    chunk_slot& slot = slots[turn % kTurns];
    wait_for(slot.finished, turn / kTurns);
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
      built = Codec::encode_tile(stage[turn % kTurns][warp], table, x, in + static_cast<u64>(tile) * 128, f,
                                 tile, lane);
    }
    __syncwarp();
    if (lane == 0) {
      slot.info[warp] = built.words | static_cast<u32>(built.escapes) << 8 | static_cast<u32>(built.raw) << 9;
      if constexpr (kDigest != digest_kind::none) slot.sums[warp] = sums;
      count_up(slot.arrived);
    }
    __syncwarp();
    if (finisher)
      finish_chunk<kDigest>(f, chunk_of(old), slots[old % kTurns], stage[old % kTurns], first, state, lane);
  }
  for (u32 old = turn < kBehind ? 0 : turn - kBehind; old < turn; ++old) {
    if ((old + kBehind) % kWarps != warp) continue;
    wait_for(slots[old % kTurns].arrived, kWarps * (old / kTurns + 1));
    const u64 first = ask_place(slots[old % kTurns], state, lane);
    finish_chunk<kDigest>(f, chunk_of(old), slots[old % kTurns], stage[old % kTurns], first, state, lane);
  }
  __syncthreads();
  if (threadIdx.x == 0) finish_launch(state, header);
}

}  // namespace trial
