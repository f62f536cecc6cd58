// One tile of rank (2-2-2-3) decoded by one warp; decode_kernel.cuh holds the kernel around it.
//
// A lane owns 32 values, 8 of each sub-block s; every stream below is in its order.
//   code word   x: s = 0, 1   y: s = 2, 3        2 bits a value, first value lowest
//   half        16 values = one 32-bit code word, four groups of 4 values = one byte
//   stream 2, 3 the lane's level-2 and level-3 fields of one half, rotated left by 24 so that the next group
//               is on top
//   stream 4    placed symbols of the lane's next four level-4 values, one byte each
//
// Shared tables, indexed by a byte of four 2-bit fields (fields past the end are 0):
//   groups[byte]  31..24 mask of the fields of the next level | 19..16 their bits | 15..0 selector
//   fourth[byte]                                               | 21..16 8 x their count | 15..0 selector
//   selector nibble: field 0..2 -> itself (entry of this level), field 3 -> 4 + number of threes before it
// so that four symbols are PRMT(level 1, PRMT(level 2, PRMT(level 3, stream 4, sel3), sel2), sel1).
#pragma once

#include "cuda/codec/dtypes.cuh"
#include "cuda/codec/raw_tile.cuh"
#include "cuda/codec/tile_place.cuh"
#include "cuda/codec/warp.cuh"

namespace tersor::cuda {

/// Placed symbols of the codebook, by level.
struct rank_entries {
  u32 first, second, third, fourth_low, fourth_high;
};

struct rank_tables {
  u32 groups[256];
  u32 fourth[256];

  TERSOR_DEVICE void fill(u32 byte) {
    u32 selector = 0, count = 0;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      const u32 field = byte >> (2 * i) & 3;
      selector |= (field == 3 ? 4 + count : field) << (4 * i);
      count += field == 3 ? 1 : 0;
    }
    groups[byte] = ((1u << 2 * count) - 1) << 24 | (2 * count) << 16 | selector;
    fourth[byte] = (8 * count) << 16 | selector;
  }
};

/// The first four 3-bit codes as selector nibbles.
TERSOR_DEVICE u32 nibbles_of_threes(u32 x) {
  return (x & 0x7) | (x << 1 & 0x70) | (x << 2 & 0x700) | (x << 3 & 0x7000);
}

/// 3-bit codes that are 7, as their lowest bit; up to eight codes.
TERSOR_DEVICE u32 sevens(u32 codes) {
  return codes & (codes >> 1) & (codes >> 2) & 0x249249u;
}

struct half_streams {
  u32 code, second, third;
};

/// A lane's level-4 values: the first eight placed symbols ready, or the place to fetch them from.
struct deep_values {
  uint2 ready;
  const u32* words;
  u32 bit;            ///< next level-4 code
  const u8* escapes;  ///< next escape
};

/// How a half gets its level-4 symbols: four or eight a lane prepared in registers, or fetched group by
/// group.
enum class deep_path { four, eight, any };

template <class Lane>
struct rank_decoder {
  static constexpr u32 kCodeWidth = 2;
  using entries = rank_entries;
  using tables = rank_tables;
  static constexpr u32 kRestBytes = Lane::kRestBytes;
  using rest = typename Lane::rest;
  using row = typename Lane::row;
  static constexpr u32 kRawWords = 32 * (Lane::kSymbolBits - kCodeWidth);
  /// Three levels of 1,024 values: no count of a damaged tile leads outside.
  static constexpr u32 kStageWords = 232;

  static TERSOR_DEVICE entries entries_of(uint4 book) {
    const u32 p0 = Lane::place(book.x), p1 = Lane::place(book.y), p2 = Lane::place(book.z),
              p3 = Lane::place(book.w);
    return {ptx::opaque(p0), ptx::opaque(ptx::prmt(p0, p1, 0x0543)), ptx::opaque(ptx::prmt(p1, p2, 0x0432)),
            ptx::opaque(ptx::prmt(p2, p3, 0x4321)), ptx::opaque(ptx::prmt(p3, 0u, 0x4321))};
  }

  /// The placed symbol of the codebook's first entry, in the low byte.
  static TERSOR_DEVICE u32 first_entry(const entries& e) { return e.first; }

  static TERSOR_DEVICE bool decode(const tables& t, const entries& e, const u32* tail,
                                   const tile_place& place, const lane_plane<2>& code, const rest& r,
                                   row (&out)[4], u32 lane) {
    if (!place.raw()) {
      return decode_coded(t, e, tail, place.words(), place.escapes(), code, r, out) &&
             place.words() < kRawWords;
    }
    decode_raw<Lane, 2>(tail, code, r, out, lane);
    return place.words() == kRawWords && !place.escapes();
  }

 private:
  /// Symbols of the next `count` (<= 4) level-4 values, one by one.
  static TERSOR_DEVICE u32 slow_fourth(const entries& e, deep_values& at, u32 count) {
    const u32 codes = bits_at(at.words, at.bit);
    u32 out = ptx::prmt(e.fourth_low, e.fourth_high, nibbles_of_threes(codes));
    at.bit += 3 * count;
#pragma unroll 1
    for (u32 i = 0; i < count; ++i) {
      if ((codes >> (3 * i) & 7) == 7) out |= Lane::place(*at.escapes++) << (8 * i);
    }
    return out;
  }

  /// Counts the tile's escapes and points each lane at its first one; they begin at byte `first` of the tail.
  static TERSOR_DEVICE u32 find_escapes(deep_values& deep, u32 n3, u32 first) {
    u32 mine = 0;
#pragma unroll 1
    for (u32 i = 0; i < n3; i += 8)
      mine +=
          ptx::popc(sevens(keep_low(bits_at(deep.words, deep.bit + 3 * i), 3 * (n3 - i < 8 ? n3 - i : 8))));
    const u32 scan = inclusive_scan(mine);
    deep.escapes = reinterpret_cast<const u8*>(deep.words) + first + (scan - mine);
    return ptx::shfl(scan, 31);
  }

  /// Puts a lane's escapes, whose level-4 entry is zero, among its ready values.
  static TERSOR_DEVICE void insert_escapes(deep_values& deep, u32 n3) {
    const u8* next = deep.escapes;
#pragma unroll 1
    for (u32 marks = sevens(keep_low(bits_at(deep.words, deep.bit), 3 * n3)); marks != 0;
         marks &= marks - 1) {
      const u32 i = ptx::lowest_bit(marks) / 3, symbol = Lane::place(*next++) << (8 * (i & 3));
      (i < 4 ? deep.ready.x : deep.ready.y) |= symbol;
    }
  }

  template <deep_path kPath>
  static TERSOR_DEVICE void decode_half(const tables& t, const entries& e, const half_streams& in,
                                        deep_values& deep, const rest& r, u32 half, row (&out)[4]) {
    uint2& fourth = deep.ready;
    const char* groups = reinterpret_cast<const char*>(t.groups);
    const char* last = reinterpret_cast<const char*>(t.fourth);
    u32 q = ptx::funnel_left(in.second, in.second, 24);
    u32 p = ptx::funnel_left(in.third, in.third, 24);
#pragma unroll
    for (u32 g = 0; g < 4; ++g) {
      const u32 index = (g == 0 ? in.code << 2 : in.code >> (8 * g - 2)) & 0x3fc;
      const u32 a = *reinterpret_cast<const u32*>(groups + index);
      const u32 b = *reinterpret_cast<const u32*>(groups + ((q & a) >> 22));
      const u32 c = *reinterpret_cast<const u32*>(last + ((p & b) >> 22));
      u32 level4 = fourth.x;
      if constexpr (kPath == deep_path::any) level4 = slow_fourth(e, deep, ptx::popc(threes((p & b) >> 24)));
      const u32 level3 = ptx::prmt(e.third, level4, c);
      const u32 level2 = ptx::prmt(e.second, level3, b);
      const u32 level1 = ptx::prmt(e.first, level2, a);
      if (g < 3) {
        q = ptx::funnel_right(q, q, a >> 16);
        p = ptx::funnel_right(p, p, b >> 16);
      }
      if constexpr (kPath != deep_path::any) {
        // A count of four empties the first word: the clamped shift moves the second one in.
        fourth.x = ptx::funnel_right_clamped(fourth.x, kPath == deep_path::eight ? fourth.y : 0u, c >> 16);
        if constexpr (kPath == deep_path::eight) fourth.y = ptx::funnel_right_clamped(fourth.y, 0u, c >> 16);
      }
      Lane::join(level1, r, 2 * half + g / 2, g % 2, out[2 * half + g / 2]);
    }
  }

  template <deep_path kPath>
  static TERSOR_DEVICE void decode_halves(const tables& t, const entries& e, const half_streams& a,
                                          const half_streams& b, deep_values& deep, const rest& r,
                                          row (&out)[4]) {
    decode_half<kPath>(t, e, a, deep, r, 0, out);
    decode_half<kPath>(t, e, b, deep, r, 1, out);
  }

  /// Escapes from byte `first` on are symbols.
  static TERSOR_DEVICE bool escapes_fit(const u32* tail, u32 first, u32 count, u32 lane) {
    if constexpr (Lane::kSymbolBits == 8) return true;
    bool fit = true;
    for (u32 i = lane; i < count; i += 32)
      fit = fit && reinterpret_cast<const u8*>(tail)[first + i] >> Lane::kSymbolBits == 0;
    return ptx::all(fit);
  }

  /// Decodes a coded tile from its staged tail. Returns whether the tail is exactly what the counts say.
  static TERSOR_DEVICE bool decode_coded(const tables& t, const entries& e, const u32* tail, u32 words,
                                         bool flagged, const lane_plane<2>& code, const rest& r,
                                         row (&out)[4]) {
    const u32 n1a = ptx::popc(threes(code.w[0])), n1 = n1a + ptx::popc(threes(code.w[1]));
    const u32 scan1 = inclusive_scan(n1), all1 = ptx::shfl(scan1, 31);
    const u32 at2 = 2 * (scan1 - n1);
    half_streams a{code.w[0], keep_low(bits_at(tail, at2), 2 * n1a), 0};
    half_streams b{code.w[1], keep_low(bits_at(tail, at2 + 2 * n1a), 2 * (n1 - n1a)), 0};
    const u32 n2a = ptx::popc(threes(a.second)), n2 = n2a + ptx::popc(threes(b.second));
    const u32 scan2 = inclusive_scan(n2), all2 = ptx::shfl(scan2, 31);
    const u32 at3 = 2 * (all1 + scan2 - n2);
    a.third = keep_low(bits_at(tail, at3), 2 * n2a);
    b.third = keep_low(bits_at(tail, at3 + 2 * n2a), 2 * (n2 - n2a));
    const u32 n3 = ptx::popc(threes(a.third)) + ptx::popc(threes(b.third));
    const u32 scan3 = inclusive_scan(n3), all3 = ptx::shfl(scan3, 31);
    const u32 at4 = 2 * (all1 + all2) + 3 * (scan3 - n3), end4 = 2 * (all1 + all2) + 3 * all3;

    const u32 codes = bits_at(tail, at4);
    const u32 most = ptx::any(n3 > 4) ? (ptx::any(n3 > 8) ? 32u : 8u) : 4u;
    deep_values deep{
        {ptx::prmt(e.fourth_low, e.fourth_high, nibbles_of_threes(codes)), 0}, tail, at4, nullptr};
    u32 bytes = (end4 + 7) >> 3, escapes = 0;
    bool fit = true;
    if (flagged || most > 4) {
      if (most > 4)
        deep.ready.y = ptx::prmt(e.fourth_low, e.fourth_high, nibbles_of_threes(bits_at(tail, at4 + 12)));
      escapes = find_escapes(deep, n3, bytes);
      bytes += escapes;
      if (bytes > 4 * words) {
#pragma unroll
        for (u32 s = 0; s < 4; ++s) out[s] = row{};
        return false;
      }
      fit = escapes_fit(tail, bytes - escapes, escapes, ptx::thread_index() & 31);
      if (escapes != 0 && most <= 8) insert_escapes(deep, n3);
    } else {
      // The flag is clear: there must be no escape code.
      escapes = ptx::any(sevens(codes & ((1u << 3 * n3) - 1)) != 0) ? 1 : 0;
    }
    if (most == 4) {
      decode_halves<deep_path::four>(t, e, a, b, deep, r, out);
    } else if (most == 8) {
      decode_halves<deep_path::eight>(t, e, a, b, deep, r, out);
    } else {
      decode_halves<deep_path::any>(t, e, a, b, deep, r, out);
    }
    return (escapes != 0) == flagged && (bytes + 3) >> 2 == words && fit &&
           zero_padded(tail, words, bytes, end4);
  }

  /// What is left of the last level's byte, and of the last word, is zero.
  static TERSOR_DEVICE bool zero_padded(const u32* tail, u32 words, u32 bytes, u32 end4) {
    if (bytes == 0) return true;
    const u32 last = reinterpret_cast<const u8*>(tail)[end4 >> 3];
    const u32 bit_pad = (end4 & 7) != 0 ? last >> (end4 & 7) : 0;
    const u32 byte_pad = (bytes & 3) != 0 ? tail[words - 1] >> (8 * (bytes & 3)) : 0;
    return (bit_pad | byte_pad) == 0;
  }
};

}  // namespace tersor::cuda
