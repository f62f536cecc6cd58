// One tile of top16 for BF16, encoded and decoded by one warp.
//
// A lane's 32 codes are one 16-byte word, 32 bits a sub-block, first value in the lowest nibble.
// Decode: four nibbles are PRMT selectors into the low and the high half of the codebook; their top bits
// choose between. Encode: table[symbol] = the code in all eight nibbles, so that eight values merge by masks.
#pragma once

#include "decode.cuh"
#include "encode.cuh"

namespace trial {

/// Rotated exponents of the codebook, four a word; entry 15 is zero so that an escape can be OR-ed in.
struct top16_entries {
  u32 e0, e1, e2, e3;
};

/// Nibbles that are 15, as their lowest bit.
__device__ inline u32 fifteens(u32 codes) {
  u32 pairs = codes & codes >> 1;
  return pairs & pairs >> 2 & 0x11111111u;
}

/// Exponents of eight values: x = values 0..3, y = 4..7.
__device__ inline uint2 exponents_of(const top16_entries& e, u32 codes) {
  const u32 low = codes & 0x77777777u, top = codes >> 3 & 0x11111111u;
  uint2 out;
  out.x = blend(select_bytes(e.e2, e.e3, low), select_bytes(e.e0, e.e1, low), select_bytes(0xff00, 0, top));
  out.y = blend(select_bytes(e.e2, e.e3, low >> 16), select_bytes(e.e0, e.e1, low >> 16),
                select_bytes(0xff00, 0, top >> 16));
  return out;
}

/// Four nibbles to bytes.
__device__ inline u32 spread_nibbles(u32 x) {
  x = (x | x << 8) & 0x00ff00ff;
  return (x | x << 4) & 0x0f0f0f0f;
}

struct top16_decoder {
  using code_word = uint4;
  using entries = top16_entries;
  struct tables {};
  static constexpr u32 kRawWords = 128;
  static constexpr u32 kStageWords = 256;  // 1,024 escapes

  static __device__ void fill(tables&, u32) {}

  static __device__ bool decode(const tables&, const entries& e, const u32* tail, const tile_place& place,
                                uint4 code, const uint2 rest[4], uint4 out[4], u32 lane) {
    const u32 codes[4] = {code.x, code.y, code.z, code.w};
    const u8* next = reinterpret_cast<const u8*>(tail);
    u32 all = 0;
    if (place.escapes()) {
      u32 mine = 0;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) mine += __popc(fifteens(codes[s]));
      u32 scan = inclusive_scan(mine);
      all = __shfl_sync(kFull, scan, 31);
      next += scan - mine;
    }
    u32 unflagged = 0;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      uint2 x;
      if (place.raw()) {
        x.x = rotate_symbols(spread_nibbles(codes[s] & 0xffff) | spread_nibbles(tail[4 * lane + s] & 0xffff)
                                                                     << 4);
        x.y = rotate_symbols(spread_nibbles(codes[s] >> 16) | spread_nibbles(tail[4 * lane + s] >> 16) << 4);
      } else {
        x = exponents_of(e, codes[s]);
        u32 marks = fifteens(codes[s]);
        unflagged |= marks;
        if (place.escapes()) {
#pragma unroll 1
          for (; marks; marks &= marks - 1) {
            u32 at = (__ffs(marks) - 1) * 2, symbol = rotate_symbols(*next++);
            if (at < 32)
              x.x |= symbol << at;
            else
              x.y |= symbol << (at - 32);
          }
        }
      }
      uint2 a = assemble(x.x, rest[s].x), b = assemble(x.y, rest[s].y);
      out[s] = {a.x, a.y, b.x, b.y};
    }
    if (place.raw()) return place.words() == kRawWords && !place.escapes();
    if (!place.escapes()) return !__any_sync(kFull, unflagged) && place.words() == 0;
    const u32 padding = all & 3 ? tail[all >> 2] >> (8 * (all & 3)) : 0;
    return all != 0 && (all + 3) >> 2 == place.words() && place.words() < kRawWords && padding == 0;
  }
};

/// Host: the table of a codebook.
inline void top16_encode_table(const u8 codebook[16], u32 table[256]) {
  for (u32 i = 0; i < 256; ++i) table[i] = 0xffffffffu;
  for (u32 i = 15; i-- > 0;) table[codebook[i]] = 0x11111111u * i;
}

struct top16_encoder {
  using table_entry = u32;
  static constexpr u32 kStageWords = 128;

  static __device__ u32 encode_eight(const u32* table, uint4 x) {
    const char* base = reinterpret_cast<const char*>(table);
    const u32 words[4] = {x.x, x.y, x.z, x.w};
    u32 pair[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      u32 a = *reinterpret_cast<const u32*>(base + (words[i] >> 5 & 0x3fc));
      u32 b = *reinterpret_cast<const u32*>(base + (words[i] >> 21 & 0x3fc));
      pair[i] = blend(b, a, kMasks.odd_nibbles);
    }
    return blend(blend(pair[3], pair[2], kMasks.odd_bytes), blend(pair[1], pair[0], kMasks.odd_bytes),
                 0xffff0000u);
  }

  static __device__ built_tail escapes_of(u32* tail, const u32 codes[4], const uint4* from, u32 lane) {
    u32 mine = 0;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) mine += __popc(fifteens(codes[s]));
    if (!__any_sync(kFull, mine)) return {0, false, false};
    const u32 scan = inclusive_scan(mine), all = __shfl_sync(kFull, scan, 31), words = (all + 3) >> 2;
    if (words >= 128) return {128, false, true};
    for (u32 i = lane; i < words; i += 32) tail[i] = 0;
    __syncwarp();
    u32 at = scan - mine;
    const u16* values = reinterpret_cast<const u16*>(from) + 8 * lane;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      for (u32 marks = fifteens(codes[s]); marks; marks &= marks - 1, ++at) {
        u32 symbol = values[256 * s + (__ffs(marks) - 1) / 4] >> 7 & 0xff;
        atomicOr(tail + (at >> 2), symbol << (8 * (at & 3)));
      }
    }
    return {words, true, false};
  }

  static __device__ built_tail encode_tile(u32* tail, const u32* table, const uint4 x[4], const uint4* from,
                                           const frame_view& f, u32 tile, u32 lane) {
    u32 codes[4];
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      codes[s] = encode_eight(table, x[s]);
      store_rest(f, tile, s, lane, x[s]);
    }
    built_tail built = escapes_of(tail, codes, from, lane);
    if (built.raw) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) {
        u32 a = symbols_of(x[s].x, x[s].y), b = symbols_of(x[s].z, x[s].w);
        codes[s] = pack_nibbles(a & 0x0f0f0f0f) | pack_nibbles(b & 0x0f0f0f0f) << 16;
        tail[4 * lane + s] = pack_nibbles(a >> 4 & 0x0f0f0f0f) | pack_nibbles(b >> 4 & 0x0f0f0f0f) << 16;
      }
    }
    reinterpret_cast<uint4*>(f.code + static_cast<u64>(tile) * 512)[lane] = {codes[0], codes[1], codes[2],
                                                                             codes[3]};
    return built;
  }
};

}  // namespace trial
