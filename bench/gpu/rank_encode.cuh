// One tile of rank (2-2-2-3) encoded by one warp; encode.cuh holds the kernel around it.
//
// Table, 8 bytes a symbol:
//   x  31..30 level-2 field, bits reversed | 23..8 eight copies of the level-1 field | 4..0 2 if level 2
//   exists y  31..28 deep nibble, bits reversed                                             | 4..0 4 if level
//   3 exists
// Fields are appended by a funnel shift whose amount is the entry itself, first value highest; one bit
// reversal at the end restores the order. The deep nibble joins levels 3 and 4: 0..2 = level-3 code, 3..10 =
// 3 + level-4 code.
#pragma once

#include "encode.cuh"

namespace trial {

constexpr u32 kRankRawWords = 192;
constexpr u32 kEncodeStage = 200;
constexpr u32 kEscapeNibble = 5;  // 10 with its bits reversed

inline u32 reverse_bits(u32 value, u32 width) {
  u32 out = 0;
  for (u32 i = 0; i < width; ++i) out |= (value >> i & 1) << (width - 1 - i);
  return out;
}

/// Host: the table of a codebook.
inline void rank_encode_table(const u8 codebook[16], uint2 table[256]) {
  u32 rank_of[256];
  for (u32& r : rank_of) r = 16;
  for (u32 i = 0; i < 16; ++i) rank_of[codebook[i]] = i;
  for (u32 symbol = 0; symbol < 256; ++symbol) {
    u32 r = rank_of[symbol];
    u32 c1 = r < 3 ? r : 3, c2 = r < 3 ? 0 : r < 6 ? r - 3 : 3, deep = r < 6 ? 0 : r - 6;
    table[symbol].x = reverse_bits(c2, 2) << 30 | (c1 * 0x5555) << 8 | (r >= 3 ? 2 : 0);
    table[symbol].y = reverse_bits(deep, 4) << 28 | (r >= 6 ? 4 : 0);
  }
}

__device__ inline u32 threes_of(u32 fields) {
  return fields & (fields >> 1) & 0x55555555u;
}

/// Eight values of one sub-block: level-1 fields in bits 8..23 of the result, level 2 and deep appended.
__device__ inline u32 encode_eight(const uint2* table, uint4 x, u32& second, u32& deep) {
  const char* base = reinterpret_cast<const char*>(table);
  const u32 words[4] = {x.x, x.y, x.z, x.w};
  u32 e[8];
#pragma unroll
  for (u32 i = 0; i < 8; ++i) {
    u32 at = words[i / 2] >> (i % 2 ? 20 : 4) & 0x7f8;
    uint2 entry = *reinterpret_cast<const uint2*>(base + at);
    e[i] = entry.x;
    second = __funnelshift_l(entry.x, second, entry.x);
    deep = __funnelshift_l(entry.y, deep, entry.y);
  }
  u32 f01 = blend(e[1], e[0], kMasks.odd_fields), f23 = blend(e[3], e[2], kMasks.odd_fields);
  u32 f45 = blend(e[5], e[4], kMasks.odd_fields), f67 = blend(e[7], e[6], kMasks.odd_fields);
  u32 low = blend(f23, f01, kMasks.odd_pairs), high = blend(f67, f45, kMasks.odd_pairs);
  return blend(high, low, kMasks.high_byte);
}

/// Deep nibbles of which value continue after level 3, as the lowest bit of their nibble.
__device__ inline u32 deeper(u32 nibbles) {
  return (nibbles + 0x55555555u) >> 3 & 0x11111111u;
}

__device__ inline u32 deep_escapes(u32 nibbles) {
  return nibbles >> 3 & nibbles >> 1 & 0x11111111u;
}

/// First-value-highest nibbles to first-value-lowest.
__device__ inline u32 in_order(u32 nibbles, u32 count) {
  return count ? __brev(nibbles) >> (32 - 4 * count) : 0;
}

/// Writes the level-3 fields and the level-4 codes of up to eight deep nibbles and moves the cursors.
__device__ inline void place_deep(u32* tail, u32 nibbles, u32 count, u32& at3, u32& at4) {
  u32 more = deeper(nibbles);
  u32 fields = (nibbles & ~(more * 15)) | more * 3;
  fields = (fields | fields >> 2) & 0x0f0f0f0f;
  fields = (fields | fields >> 4) & 0x00ff00ff;
  fields = (fields | fields >> 8) & 0xffff;
  or_bits(tail, at3, fields);
  at3 += 2 * count;
  if (more) {
    u32 codes = 0, bits = 0;
#pragma unroll 1
    for (; more; more &= more - 1, bits += 3) codes |= ((nibbles >> (__ffs(more) - 1) & 15) - 3) << bits;
    or_bits(tail, at4, codes);
    at4 += bits;
  }
}

/// Appends the escapes in lane order, one lane's 32 values at a time. Returns how many there are.
__device__ inline u32 place_escapes(u32* tail, const u16* tile, const uint2* table, u32 lanes, u32 first_byte,
                                    u32 lane) {
  u32 count = 0;
#pragma unroll 1
  for (; lanes; lanes &= lanes - 1) {
    u32 owner = __ffs(lanes) - 1;
    u32 symbol = tile[256 * (lane >> 3) + 8 * owner + (lane & 7)] >> 7 & 0xff;
    u32 entry = table[symbol].y;
    bool escape = entry >> 28 == kEscapeNibble;
    u32 all = __ballot_sync(kFull, escape);
    u32 at = first_byte + count + __popc(all & ((1u << lane) - 1));
    if (escape && at < 4 * kRankRawWords) atomicOr(tail + (at >> 2), symbol << (8 * (at & 3)));
    count += __popc(all);
  }
  return count;
}

/// Four 2-bit fields, one a byte, to one byte.
__device__ inline u32 pack_pairs(u32 x) {
  x = (x | x >> 6) & 0x000f000f;
  return (x | x >> 12) & 0xff;
}

/// Raw tile: two low bits of the symbols to the code plane, planes of four and two bits to the tail.
__device__ inline uint2 build_raw(u32* tail, const uint4* tile, u32 lane) {
  uint2 code{0, 0}, top{0, 0};
#pragma unroll
  for (u32 s = 0; s < 4; ++s) {
    const uint4 x = tile[32 * s + lane];
    u32 nibbles = 0;
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
      const u32 e = h ? symbols_of(x.z, x.w) : symbols_of(x.x, x.y), shift = 8 * (2 * (s % 2) + h);
      nibbles |= pack_nibbles(e >> 2 & 0x0f0f0f0f) << (16 * h);
      (s < 2 ? code.x : code.y) |= pack_pairs(e & 0x03030303) << shift;
      (s < 2 ? top.x : top.y) |= pack_pairs(e >> 6 & 0x03030303) << shift;
    }
    tail[4 * lane + s] = nibbles;
  }
  tail[128 + 2 * lane] = top.x;
  tail[129 + 2 * lane] = top.y;
  return code;
}

/// Streams of a lane after the table pass.
struct lane_streams {
  u32 code_a, code_b;      ///< level 1, 16 values each
  u32 second_a, second_b;  ///< level 2, first value highest
  u32 deep_a, deep_b;      ///< deep nibbles, first value highest; right while there are at most eight
};

__device__ inline built_tail build_tail(u32* tail, const lane_streams& in, const uint2* table,
                                        const uint4* tile, u32 lane) {
  const u32 n1a = __popc(threes_of(in.code_a)), n1 = n1a + __popc(threes_of(in.code_b));
  const u32 n2a = __popc(threes_of(in.second_a)), n2b = __popc(threes_of(in.second_b)), n2 = n2a + n2b;
  const u32 deep_a = in_order(in.deep_a, n2a), deep_b = in_order(in.deep_b, n2b);
  u32 n3 = __popc(deeper(deep_a) | deeper(deep_b) << 1),
      escapes = deep_escapes(deep_a) | deep_escapes(deep_b);
  const bool wide = __any_sync(kFull, max(n2a, n2b) > 8);
  if (wide) {
    n3 = 0;
    escapes = 0;
#pragma unroll 1
    for (u32 s = 0; s < 4; ++s) {
      u32 second = 0, deep = 0;
      encode_eight(table, tile[32 * s + lane], second, deep);
      n3 += __popc(deeper(__brev(deep)));
      escapes |= deep_escapes(__brev(deep));
    }
  }
  // One scan for three counts: a tile whose counts would not fit 11, 11 and 10 bits is raw anyway.
  const u32 counts = n1 | n2 << 11 | n3 << 22;
  const u32 scan = inclusive_scan(counts), all = __shfl_sync(kFull, scan, 31), mine = scan - counts;
  const u32 all1 = all & 0x7ff, all2 = all >> 11 & 0x7ff, all3 = all >> 22;
  const u32 bits = 2 * (all1 + all2) + 3 * all3;
  const bool overflow = __any_sync(kFull, all3 < n3);
  if (overflow || (bits + 31) >> 5 >= kRankRawWords) return {kRankRawWords, false, true};
  const u32 lanes = __ballot_sync(kFull, escapes != 0);
  if (lanes || bits >= 32 * 60) {
#pragma unroll 1
    for (u32 i = lane + 64; i < kRankRawWords; i += 32) tail[i] = 0;
  }
  __syncwarp();

  const u32 a = n1a ? __brev(in.second_a) >> (32 - 2 * n1a) : 0,
            b = n1 != n1a ? __brev(in.second_b) >> (32 - 2 * (n1 - n1a)) : 0;
  const u32 low = a | __funnelshift_lc(0u, b, 2 * n1a), high = __funnelshift_lc(b, 0u, 2 * n1a);
  const u32 at2 = 2 * (mine & 0x7ff);
  u32* to = tail + (at2 >> 5);
  atomicOr(to, low << (at2 & 31));
  or_word(to + 1, __funnelshift_l(low, high, at2));
  or_word(to + 2, __funnelshift_l(high, 0u, at2));

  u32 at3 = 2 * (all1 + (mine >> 11 & 0x7ff)), at4 = 2 * (all1 + all2) + 3 * (mine >> 22);
  if (wide) {
#pragma unroll 1
    for (u32 s = 0; s < 4; ++s) {
      u32 second = 0, deep = 0;
      encode_eight(table, tile[32 * s + lane], second, deep);
      const u32 count = __popc(threes_of(second));
      place_deep(tail, in_order(deep, count), count, at3, at4);
    }
  } else if (!__any_sync(kFull, n2 > 8)) {
    if (n2) place_deep(tail, deep_a | __funnelshift_lc(0u, deep_b, 4 * n2a), n2, at3, at4);
  } else {
    place_deep(tail, deep_a, n2a, at3, at4);
    place_deep(tail, deep_b, n2b, at3, at4);
  }
  u32 bytes = (bits + 7) >> 3;
  if (lanes) {
    __syncwarp();
    bytes += place_escapes(tail, reinterpret_cast<const u16*>(tile), table, lanes, bytes, lane);
    if ((bytes + 3) >> 2 >= kRankRawWords) return {kRankRawWords, false, true};
  }
  return {(bytes + 3) >> 2, lanes != 0, false};
}

struct rank_encoder {
  using table_entry = uint2;
  static constexpr u32 kStageWords = kEncodeStage;

  static __device__ built_tail encode_tile(u32* tail, const uint2* table, const uint4 x[4], const uint4* from,
                                           const frame_view& f, u32 tile, u32 lane) {
    tail[lane] = 0;
    tail[lane + 32] = 0;
    lane_streams streams{0, 0, 0, 0, 0, 0};
    u32 fields[4];
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      fields[s] = encode_eight(table, x[s], s < 2 ? streams.second_a : streams.second_b,
                               s < 2 ? streams.deep_a : streams.deep_b);
      store_rest(f, tile, s, lane, x[s]);
    }
    streams.code_a = __byte_perm(fields[0], fields[1], 0x6521);
    streams.code_b = __byte_perm(fields[2], fields[3], 0x6521);
    built_tail built = build_tail(tail, streams, table, from, lane);
    uint2 code{streams.code_a, streams.code_b};
    if (built.raw) {
      __syncwarp();
      code = build_raw(tail, from, lane);
    }
    reinterpret_cast<uint2*>(f.code + static_cast<u64>(tile) * 256)[lane] = code;
    return built;
  }
};

}  // namespace trial
