// One tile of rank (2-2-2-3) decoded by one warp; decode.cuh holds the kernel around it.
//
// A lane owns 32 values, 8 of each sub-block s; every stream below is in its order.
//   code word   x: s = 0, 1   y: s = 2, 3        2 bits a value, first value lowest
//   half        16 values = one 32-bit code word, four groups of 4 values = one byte
//   stream 2, 3 the lane's level-2 and level-3 fields of one half, rotated left by 24 so that the next group
//   is on top stream 4    exponents of the lane's next four level-4 values, one byte each
//
// Shared tables, indexed by a byte of four 2-bit fields (fields past the end are 0):
//   groups[byte]  31..24 mask of the fields of the next level | 19..16 their bits | 15..0 selector
//   fourth[byte]                                               | 21..16 8 x their count | 15..0 selector
//   selector nibble: field 0..2 -> itself (entry of this level), field 3 -> 4 + number of threes before it
// so that four exponents are PRMT(level 1, PRMT(level 2, PRMT(level 3, stream 4, sel3), sel2), sel1).
// Exponents are held rotated right by one: the byte is then the high byte of the BF16 but its sign, and bit 7
// the low byte's.
#pragma once

#include "decode.cuh"

namespace trial {

/// Rotated exponents of the codebook, by level.
struct rank_entries {
  u32 first, second, third, fourth_low, fourth_high;
};

struct rank_tables {
  u32 groups[256];
  u32 fourth[256];
};

__device__ inline void fill_tables(rank_tables& t, u32 byte) {
  u32 selector = 0, count = 0;
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    u32 field = byte >> (2 * i) & 3;
    selector |= (field == 3 ? 4 + count : field) << (4 * i);
    count += field == 3;
  }
  t.groups[byte] = ((1u << 2 * count) - 1) << 24 | (2 * count) << 16 | selector;
  t.fourth[byte] = (8 * count) << 16 | selector;
}

__device__ inline u32 threes(u32 fields) {
  return fields & (fields >> 1) & 0x55555555u;
}

/// 32 bits of a stream from any bit on.
__device__ inline u32 bits_at(const u32* words, u32 bit) {
  return __funnelshift_r(words[bit >> 5], words[(bit >> 5) + 1], bit);
}

/// Keeps the low `bits` (0..32) bits.
__device__ inline u32 keep_low(u32 value, u32 bits) {
  return value & ~__funnelshift_lc(0u, kFull, bits);
}

/// The first four 3-bit codes as selector nibbles.
__device__ inline u32 nibbles_of_threes(u32 x) {
  return (x & 0x7) | (x << 1 & 0x70) | (x << 2 & 0x700) | (x << 3 & 0x7000);
}

struct half_streams {
  u32 code, second, third;
};

/// Where a lane stands in level 4 and in the escapes.
struct slow_cursor {
  const u32* words;
  u32 bit;            ///< next level-4 code
  const u8* escapes;  ///< next escape
};

/// A lane's level-4 values: the first eight exponents ready, or the place to fetch them from.
struct deep_values {
  uint2 ready;
  slow_cursor at;
};

/// Exponents of the next `count` (<= 4) level-4 values, one by one.
__device__ inline u32 slow_fourth(const rank_entries& e, slow_cursor& at, u32 count) {
  u32 codes = bits_at(at.words, at.bit);
  u32 out = select_bytes(e.fourth_low, e.fourth_high, nibbles_of_threes(codes));
  at.bit += 3 * count;
#pragma unroll 1
  for (u32 i = 0; i < count; ++i) {
    if ((codes >> (3 * i) & 7) == 7) {
      const u32 symbol = *at.escapes++;
      out |= rotate_symbols(symbol) << (8 * i);
    }
  }
  return out;
}

/// Counts the tile's escapes and points each lane at its first one; they begin at byte `first` of the tail.
__device__ inline u32 find_escapes(deep_values& deep, u32 n3, u32 first) {
  u32 mine = 0;
#pragma unroll 1
  for (u32 i = 0; i < n3; i += 8) {
    // Eight codes, the missing ones cleared; an escape is three ones.
    const u32 live = keep_low(bits_at(deep.at.words, deep.at.bit + 3 * i), 3 * min(n3 - i, 8u));
    mine += __popc(live & (live >> 1) & (live >> 2) & 0x249249u);
  }
  const u32 scan = inclusive_scan(mine);
  deep.at.escapes = reinterpret_cast<const u8*>(deep.at.words) + first + (scan - mine);
  return __shfl_sync(kFull, scan, 31);
}

/// Puts a lane's escapes, whose level-4 exponent is zero, among its ready values.
__device__ inline void insert_escapes(deep_values& deep, u32 n3) {
  const u8* next = deep.at.escapes;
  const u32 live = keep_low(bits_at(deep.at.words, deep.at.bit), 3 * n3);
#pragma unroll 1
  for (u32 marks = live & (live >> 1) & (live >> 2) & 0x249249u; marks; marks &= marks - 1) {
    const u32 i = (__ffs(marks) - 1) / 3, exponent = rotate_symbols(*next++) << (8 * (i & 3));
    (i < 4 ? deep.ready.x : deep.ready.y) |= exponent;
  }
}

/// How a half gets its level-4 exponents: four or eight a lane prepared in registers, or fetched group by
/// group.
enum class deep_path { four, eight, any };

template <deep_path kPath>
__device__ inline void decode_half(const rank_tables& tables, const rank_entries& e, half_streams in,
                                   deep_values& deep, const uint2& rest0, const uint2& rest1, uint4& out0,
                                   uint4& out1) {
  uint2& fourth = deep.ready;
  const char* groups = reinterpret_cast<const char*>(tables.groups);
  const char* last = reinterpret_cast<const char*>(tables.fourth);
  u32 q = __funnelshift_l(in.second, in.second, 24);
  u32 r = __funnelshift_l(in.third, in.third, 24);
#pragma unroll
  for (u32 g = 0; g < 4; ++g) {
    u32 index = (g == 0 ? in.code << 2 : in.code >> (8 * g - 2)) & 0x3fc;
    u32 a = *reinterpret_cast<const u32*>(groups + index);
    u32 b = *reinterpret_cast<const u32*>(groups + ((q & a) >> 22));
    u32 c = *reinterpret_cast<const u32*>(last + ((r & b) >> 22));
    u32 level4 = fourth.x;
    if constexpr (kPath == deep_path::any) level4 = slow_fourth(e, deep.at, __popc(threes((r & b) >> 24)));
    u32 level3 = select_bytes(e.third, level4, c);
    u32 level2 = select_bytes(e.second, level3, b);
    u32 level1 = select_bytes(e.first, level2, a);
    if (g < 3) {
      q = __funnelshift_r(q, q, a >> 16);
      r = __funnelshift_r(r, r, b >> 16);
    }
    if constexpr (kPath != deep_path::any) {
      // A count of four empties the first word: the clamped shift moves the second one in.
      fourth.x = __funnelshift_rc(fourth.x, kPath == deep_path::eight ? fourth.y : 0u, c >> 16);
      if constexpr (kPath == deep_path::eight) fourth.y = __funnelshift_rc(fourth.y, 0u, c >> 16);
    }
    uint2 v = assemble(level1, g == 0 ? rest0.x : g == 1 ? rest0.y : g == 2 ? rest1.x : rest1.y);
    uint4& out = g < 2 ? out0 : out1;
    if (g % 2 == 0) {
      out.x = v.x;
      out.y = v.y;
    } else {
      out.z = v.x;
      out.w = v.y;
    }
  }
}

/// Decodes a coded tile from its staged tail. Returns whether the tail is exactly what the counts say.
__device__ inline bool decode_tile(const rank_tables& tables, const rank_entries& e, const u32* tail,
                                   u32 words, bool flagged, uint2 code, const uint2 rest[4], uint4 out[4],
                                   u32 lane) {
  const u32 n1a = __popc(threes(code.x)), n1 = n1a + __popc(threes(code.y));
  const u32 scan1 = inclusive_scan(n1), all1 = __shfl_sync(kFull, scan1, 31);
  const u32 at2 = 2 * (scan1 - n1);
  half_streams a{code.x, keep_low(bits_at(tail, at2), 2 * n1a), 0};
  half_streams b{code.y, keep_low(bits_at(tail, at2 + 2 * n1a), 2 * (n1 - n1a)), 0};
  const u32 n2a = __popc(threes(a.second)), n2 = n2a + __popc(threes(b.second));
  const u32 scan2 = inclusive_scan(n2), all2 = __shfl_sync(kFull, scan2, 31);
  const u32 at3 = 2 * (all1 + scan2 - n2);
  a.third = keep_low(bits_at(tail, at3), 2 * n2a);
  b.third = keep_low(bits_at(tail, at3 + 2 * n2a), 2 * (n2 - n2a));
  const u32 n3 = __popc(threes(a.third)) + __popc(threes(b.third));
  const u32 scan3 = inclusive_scan(n3), all3 = __shfl_sync(kFull, scan3, 31);
  const u32 at4 = 2 * (all1 + all2) + 3 * (scan3 - n3);
  const u32 end4 = 2 * (all1 + all2) + 3 * all3;

  const u32 codes = bits_at(tail, at4), most = __any_sync(kFull, n3 > 8)   ? 32
                                               : __any_sync(kFull, n3 > 4) ? 8
                                                                           : 4;
  deep_values deep{{select_bytes(e.fourth_low, e.fourth_high, nibbles_of_threes(codes)), 0},
                   {tail, at4, nullptr}};
  u32 bytes = (end4 + 7) >> 3, escapes = 0;
  if (flagged || most > 4) {
    if (most > 4)
      deep.ready.y = select_bytes(e.fourth_low, e.fourth_high, nibbles_of_threes(bits_at(tail, at4 + 12)));
    escapes = find_escapes(deep, n3, bytes);
    bytes += escapes;
    if (bytes > 4 * words) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) out[s] = {0, 0, 0, 0};
      return false;
    }
    if (escapes != 0 && most <= 8) insert_escapes(deep, n3);
  } else {
    // The flag is clear: there must be no escape code.
    const u32 live = codes & ((1u << 3 * n3) - 1);
    escapes = __any_sync(kFull, live & (live >> 1) & (live >> 2) & 0x249u);
  }
  if (most == 4) {
    decode_half<deep_path::four>(tables, e, a, deep, rest[0], rest[1], out[0], out[1]);
    decode_half<deep_path::four>(tables, e, b, deep, rest[2], rest[3], out[2], out[3]);
  } else if (most == 8) {
    decode_half<deep_path::eight>(tables, e, a, deep, rest[0], rest[1], out[0], out[1]);
    decode_half<deep_path::eight>(tables, e, b, deep, rest[2], rest[3], out[2], out[3]);
  } else {
    decode_half<deep_path::any>(tables, e, a, deep, rest[0], rest[1], out[0], out[1]);
    decode_half<deep_path::any>(tables, e, b, deep, rest[2], rest[3], out[2], out[3]);
  }
  bool good = (escapes != 0) == flagged && (bytes + 3) >> 2 == words;
  if (good && bytes != 0) {
    // Padding: what is left of the last level's byte, and of the last word.
    u32 bit_pad = (end4 & 7) ? reinterpret_cast<const u8*>(tail)[end4 >> 3] >> (end4 & 7) : 0;
    u32 byte_pad = (bytes & 3) ? tail[words - 1] >> (8 * (bytes & 3)) : 0;
    good = (bit_pad | byte_pad) == 0;
  }
  return good;
}

/// A raw tile: low two bits in the code plane, then planes of four and two bits in the tail.
__device__ inline void decode_raw(const u32* tail, uint2 code, const uint2 rest[4], uint4 out[4], u32 lane) {
#pragma unroll
  for (u32 g = 0; g < 8; ++g) {
    u32 low = (g < 4 ? code.x : code.y) >> (8 * (g % 4)) & 0xff;
    u32 mid = tail[4 * lane + g / 2] >> (16 * (g % 2)) & 0xffff;
    u32 top = tail[128 + 2 * lane + g / 4] >> (8 * (g % 4)) & 0xff;
    low = (low | low << 12) & 0x000f000f;
    low = (low | low << 6) & 0x03030303;
    top = (top | top << 12) & 0x000f000f;
    top = (top | top << 6) & 0x03030303;
    mid = (mid | mid << 8) & 0x00ff00ff;
    mid = (mid | mid << 4) & 0x0f0f0f0f;
    uint2 v = assemble(rotate_symbols(low | mid << 2 | top << 6), g % 2 ? rest[g / 2].y : rest[g / 2].x);
    if (g % 2 == 0) {
      out[g / 2].x = v.x;
      out[g / 2].y = v.y;
    } else {
      out[g / 2].z = v.x;
      out[g / 2].w = v.y;
    }
  }
}

struct rank_decoder {
  using code_word = uint2;
  using entries = rank_entries;
  using tables = rank_tables;
  static constexpr u32 kRawWords = 192;
  static constexpr u32 kStageWords =
      232;  // three levels of 1,024 values: no count of a damaged tile leads outside

  static __device__ void fill(tables& t, u32 thread) { fill_tables(t, thread); }
  static __device__ bool decode(const tables& t, const entries& e, const u32* tail, const tile_place& place,
                                uint2 code, const uint2 rest[4], uint4 out[4], u32 lane) {
    if (!place.raw()) {
      return decode_tile(t, e, tail, place.words(), place.escapes(), code, rest, out, lane) &&
             place.words() < kRawWords;
    }
    decode_raw(tail, code, rest, out, lane);
    return place.words() == kRawWords && !place.escapes();
  }
};

}  // namespace trial
