// The decoding kernel of both codecs.
//
// Grid: as many CTAs of 8 warps as fit; CTA b takes chunks b, b + grid, ...; warp w decodes tile w of the chunk.
// The planes, the first 32 tail words and the record of the next chunk are loaded before this chunk is decoded.
//
// A lane owns 8 consecutive values of each sub-block s:
//   rest   8 bytes at 256 s + 8 l of the tile         code   one word of 8 (rank) or 16 (top16) bytes at its multiple of l
//   out    16 bytes at 512 s + 16 l of the tile       record lane i < 6 holds word i, broadcast by shuffles
// Shared: the codec's tables | stage[8 warps] of tail words | sums and verdicts of the tiles [2][8]
#pragma once

#include "device.cuh"

namespace trial {

/// Rotated exponents and rest bytes of four values to two words of BF16.
__device__ inline uint2 assemble(u32 exponents, u32 rest) {
  u32 high = blend(exponents, rest, 0x7f7f7f7fu), low = blend(exponents, rest, 0x80808080u);
  return {__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362)};
}

__device__ inline u32 rotate_symbols(u32 e) { return (e >> 1 & 0x7f7f7f7fu) | (e << 7 & 0x80808080u); }

/// What a warp loads for one tile ahead of its use.
template <class Code>
struct tile_ahead {
  uint2 rest[4];
  Code code;
  u32 tail = 0;
  tile_place place;
};

template <class Code>
__device__ inline void load_ahead(tile_ahead<Code>& a, const frame_view& f, u32 tile, u32 record, u32 warp, length_mask before,
                                  u32 lane) {
  a.place = place_of(record, warp, before, f.tail_words);
  if (tile >= f.tiles) return;
  const uint2* rest = reinterpret_cast<const uint2*>(f.rest + static_cast<std::size_t>(tile) * kTileValues) + lane;
#pragma unroll
  for (u32 s = 0; s < 4; ++s) a.rest[s] = load_once(rest + 32 * s);
  a.code = load_once(reinterpret_cast<const Code*>(f.code + static_cast<std::size_t>(tile) * (32 * sizeof(Code))) + lane);
  a.tail = lane < a.place.words ? f.tails[a.place.first + lane] : 0;
}

enum class decode_work { all, pattern_only };

/// `status[chunk]`: 1 good, 2 not of the format, 3 digest differs.
template <class Codec, u32 kCtas, digest_kind kDigest, decode_work kWork>
__global__ void __launch_bounds__(256, kCtas)
    decode_kernel(frame_view f, typename Codec::entries e, const u32* column_keys, uint4* out, u32* status) {
  __shared__ typename Codec::tables tables;
  __shared__ u32 stage[kWarps][Codec::kStageWords];
  __shared__ tile_sums sums[2][kWarps];
  __shared__ u32 good[2][kWarps];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  Codec::fill(tables, threadIdx.x);
  __syncthreads();
  tile_digest<kDigest> digest(column_keys, lane);
  const length_mask before = lengths_before(warp);
  auto record_of = [&](u32 chunk) { return chunk < f.chunks && lane < 6 ? f.records[6 * static_cast<u64>(chunk) + lane] : 0; };

  u32 chunk = blockIdx.x;
  if (chunk >= f.chunks) return;
  u32 record = record_of(chunk), next_record = record_of(chunk + gridDim.x);
  tile_ahead<typename Codec::code_word> ahead;
  load_ahead(ahead, f, kChunkTiles * chunk + warp, record, warp, before, lane);
  for (u32 turn = 0; chunk < f.chunks; chunk += gridDim.x, turn ^= 1) {
    const u32 tile = kChunkTiles * chunk + warp;
    tile_ahead<typename Codec::code_word> now = ahead;
    const u32 digest_words = record;
    record = next_record;
    if (chunk + gridDim.x < f.chunks) load_ahead(ahead, f, tile + kChunkTiles * gridDim.x, record, warp, before, lane);
    next_record = record_of(chunk + 2 * gridDim.x);

    bool ok = now.place.inside;
    digest.start();
    if (tile < f.tiles) {
      uint4* to = out + static_cast<std::size_t>(tile) * 128 + lane;
      if constexpr (kWork == decode_work::pattern_only) {
#pragma unroll
        for (u32 s = 0; s < 4; ++s) to[32 * s] = {now.rest[s].x, now.rest[s].y ^ now.code.x, now.tail, now.code.y};
        continue;
      }
      u32* tail = stage[warp];
      tail[lane] = now.tail;
      for (u32 i = lane + 32; i < now.place.words; i += 32) tail[i] = f.tails[now.place.first + i];
      __syncwarp();
      uint4 v[4];
      const bool fits = now.place.raw ? now.place.words == Codec::kRawWords && !now.place.escapes
                                      : now.place.words < Codec::kRawWords;
      ok = Codec::decode(tables, e, tail, now.place, now.code, now.rest, v, lane) && ok && fits;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) to[32 * s] = v[s];
      digest.template add<0>(v[0]);
      digest.template add<1>(v[1]);
      digest.template add<2>(v[2]);
      digest.template add<3>(v[3]);
    }
    if constexpr (kDigest != digest_kind::none) {
      tile_sums s = digest.finish();
      if (lane == 0) {
        sums[turn][warp] = s;
        good[turn][warp] = ok;
      }
      __syncthreads();
      // Warps take turns at the chunk's end, so that none is always the last.
      if (warp == (chunk / gridDim.x) % kWarps) {
        u64 digest_now = chunk_digest(sums[turn], kChunkTiles * chunk, f.tiles, lane);
        u64 want = static_cast<u64>(__shfl_sync(kFull, digest_words, 1)) << 32 | __shfl_sync(kFull, digest_words, 0);
        bool all_good = __all_sync(kFull, lane >= kWarps || good[turn][lane] != 0);
        if (lane == 0) status[chunk] = !all_good ? 2 : digest_now == want ? 1 : 3;
      }
    } else {
      if (!ok && lane == 0) status[chunk] = 2;
      __syncwarp();
    }
  }
}

}  // namespace trial
