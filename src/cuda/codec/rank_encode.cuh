// One tile of rank (2-2-2-3) encoded by one warp; encode_kernel.cuh holds the kernel around it.
//
// Table, 8 bytes a symbol:
//   x  31..30 level-2 field, bits reversed | 23..8 eight copies of the level-1 field | 4..0 2 if level 2
//   exists y  31..28 deep nibble, bits reversed                                             | 4..0 4 if level
//   3 exists
// Fields are appended by a funnel shift whose amount is the entry itself, first value highest; one bit
// reversal at the end restores the order. The deep nibble joins levels 3 and 4: 0..2 = level-3 code, 3..10 =
// 3 + level-4 code.
#pragma once

#include "cuda/codec/top16.cuh"

namespace tersor::cuda {

/// Deep nibbles of which value continue after level 3, as the lowest bit of their nibble.
TERSOR_DEVICE u32 deeper(u32 nibbles) {
  return (nibbles + 0x55555555u) >> 3 & 0x11111111u;
}
/// Deep nibbles that are 10, an escape.
TERSOR_DEVICE u32 deep_escapes(u32 nibbles) {
  return nibbles >> 3 & nibbles >> 1 & 0x11111111u;
}
/// First-value-highest nibbles to first-value-lowest; of more than eight, garbage.
TERSOR_DEVICE u32 in_order(u32 nibbles, u32 count) {
  return ptx::funnel_left_clamped(ptx::reverse(nibbles), 0u, 4 * count);
}

/// Streams of a lane after the table pass.
struct lane_streams {
  u32 second_a = 0, second_b = 0;  ///< level 2, first value highest
  u32 deep_a = 0, deep_b = 0;      ///< deep nibbles, first value highest; right while there are at most eight
};

template <class Lane>
struct rank_encoder {
  static constexpr u32 kCodeWidth = 2;
  static constexpr u32 kCodec = 2;
  using table_entry = uint2;
  static constexpr u32 kEntries = 16;
  static constexpr u32 kRawWords = 32 * (Lane::kSymbolBits - kCodeWidth);
  static constexpr u32 kStageWords = kRawWords + 8;
  using row = typename Lane::row;

  /// `place`: 0..15, or 16 for a symbol outside the codebook.
  static TERSOR_DEVICE table_entry entry_of_place(u32 place) {
    const u32 c1 = place < 3 ? place : 3, c2 = place < 3 ? 0 : place < 6 ? place - 3 : 3;
    const u32 deep = place < 6 ? 0 : place - 6;
    return {ptx::reverse(c2) | (c1 * 0x5555) << 8 | (place >= 3 ? 2u : 0u),
            ptx::reverse(deep) | (place >= 6 ? 4u : 0u)};
  }

  template <class Source>
  static TERSOR_DEVICE built_tail encode(u32* tail, const uint2* table, const row (&x)[4],
                                         const Source& source, lane_plane<2>& code, u32 lane) {
    tail[lane] = 0;
    if (kStageWords > 32 && lane + 32 < kStageWords) tail[lane + 32] = 0;
    lane_streams streams;
    const u32 f0 = encode_eight(table, x[0], streams.second_a, streams.deep_a);
    const u32 f1 = encode_eight(table, x[1], streams.second_a, streams.deep_a);
    const u32 f2 = encode_eight(table, x[2], streams.second_b, streams.deep_b);
    const u32 f3 = encode_eight(table, x[3], streams.second_b, streams.deep_b);
    code.w[0] = ptx::prmt(f0, f1, 0x6521);
    code.w[1] = ptx::prmt(f2, f3, 0x6521);
    return build_tail(tail, streams, code, table, source, lane);
  }

 private:
  /// Eight values of one sub-block: level-1 fields in bits 8..23 of the result, level 2 and deep appended.
  static TERSOR_DEVICE u32 encode_eight(const uint2* table, const row& x, u32& second, u32& deep) {
    const char* base = reinterpret_cast<const char*>(table);
    u32 e[8];
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
      const uint2 entry = *reinterpret_cast<const uint2*>(base + entry_of<Lane, 3>(x, i));
      e[i] = entry.x;
      second = ptx::funnel_left(entry.x, second, entry.x);
      deep = ptx::funnel_left(entry.y, deep, entry.y);
    }
    const u32 f01 = ptx::blend(e[1], e[0], 0x00cccc00u), f23 = ptx::blend(e[3], e[2], 0x00cccc00u);
    const u32 f45 = ptx::blend(e[5], e[4], 0x00cccc00u), f67 = ptx::blend(e[7], e[6], 0x00cccc00u);
    return ptx::blend(ptx::blend(f67, f45, 0x00f0f000u), ptx::blend(f23, f01, 0x00f0f000u), 0x00ff0000u);
  }

  /// Writes the level-3 fields and the level-4 codes of up to eight deep nibbles and moves the cursors.
  static TERSOR_DEVICE void place_deep(u32* tail, u32 nibbles, u32 count, u32& at3, u32& at4) {
    u32 more = deeper(nibbles);
    u32 fields = (nibbles & ~(more * 15)) | more * 3;
    fields = (fields | fields >> 2) & 0x0f0f0f0f;
    fields = (fields | fields >> 4) & 0x00ff00ff;
    fields = (fields | fields >> 8) & 0xffff;
    or_bits(tail, at3, fields);
    at3 += 2 * count;
    if (more != 0) {
      u32 codes = 0, bits = 0;
#pragma unroll 1
      for (; more != 0; more &= more - 1, bits += 3)
        codes |= ((nibbles >> ptx::lowest_bit(more) & 15) - 3) << bits;
      or_bits(tail, at4, codes);
      at4 += bits;
    }
  }

  /// Appends the escapes in lane order, one lane's 32 values at a time. Returns how many there are.
  template <class Source>
  static TERSOR_DEVICE u32 place_escapes(u32* tail, const Source& source, const uint2* table, u32 lanes,
                                         u32 first_byte, u32 lane) {
    u32 count = 0;
#pragma unroll 1
    for (; lanes != 0; lanes &= lanes - 1) {
      const u32 owner = ptx::lowest_bit(lanes);
      const u32 symbol = symbol_of<Lane>(source.value(256 * (lane >> 3) + 8 * owner + (lane & 7)));
      const bool escape = table[symbol].y >> 28 == 5;  // 10 with its bits reversed
      const u32 all = ptx::ballot(escape);
      const u32 at = first_byte + count + ptx::popc(all & ((1u << lane) - 1));
      if (escape && at < 4 * kRawWords) ptx::shared_or(tail + (at >> 2), symbol << (8 * (at & 3)));
      count += ptx::popc(all);
    }
    return count;
  }

  /// Places levels 3 and 4 where a lane has more deep values than a register holds: the table pass again.
  template <class Source>
  static TERSOR_DEVICE void place_wide(u32* tail, const Source& source, const uint2* table, u32 at3, u32 at4,
                                       u32 lane) {
#pragma unroll 1
    for (u32 s = 0; s < 4; ++s) {
      u32 second = 0, deep = 0;
      encode_eight(table, source.row(s, lane), second, deep);
      const u32 count = ptx::popc(threes(second));
      place_deep(tail, in_order(deep, count), count, at3, at4);
    }
  }

  static TERSOR_DEVICE void place_second(u32* tail, const lane_streams& in, u32 n1a, u32 n1b, u32 at2) {
    const u32 a = ptx::funnel_left_clamped(ptx::reverse(in.second_a), 0u, 2 * n1a);
    const u32 b = ptx::funnel_left_clamped(ptx::reverse(in.second_b), 0u, 2 * n1b);
    const u32 low = a | ptx::funnel_left_clamped(0u, b, 2 * n1a),
              high = ptx::funnel_left_clamped(b, 0u, 2 * n1a);
    u32* to = tail + (at2 >> 5);
    ptx::shared_or(to, low << (at2 & 31));
    ptx::shared_or_nonzero(to + 1, ptx::funnel_left(low, high, at2));
    ptx::shared_or_nonzero(to + 2, ptx::funnel_left(high, 0u, at2));
  }

  template <class Source>
  static TERSOR_DEVICE built_tail build_tail(u32* tail, const lane_streams& in, const lane_plane<2>& code,
                                             const uint2* table, const Source& source, u32 lane) {
    const u32 n1a = ptx::popc(threes(code.w[0])), n1b = ptx::popc(threes(code.w[1]));
    const u32 n2a = ptx::popc(threes(in.second_a)), n2b = ptx::popc(threes(in.second_b)), n2 = n2a + n2b;
    const u32 deep_a = in_order(in.deep_a, n2a), deep_b = in_order(in.deep_b, n2b);
    u32 n3 = ptx::popc(deeper(deep_a) | deeper(deep_b) << 1);
    u32 escapes = deep_escapes(deep_a) | deep_escapes(deep_b);
    const bool wide = ptx::any((n2a > n2b ? n2a : n2b) > 8);
    if (wide) {
      n3 = 0;
      escapes = 0;
#pragma unroll 1
      for (u32 s = 0; s < 4; ++s) {
        u32 second = 0, deep = 0;
        encode_eight(table, source.row(s, lane), second, deep);
        n3 += ptx::popc(deeper(ptx::reverse(deep)));
        escapes |= deep_escapes(ptx::reverse(deep));
      }
    }
    // One scan for three counts: a tile whose counts would not fit 11, 11 and 10 bits is raw anyway.
    const u32 counts = (n1a + n1b) | n2 << 11 | n3 << 22;
    const u32 scan = inclusive_scan(counts), all = ptx::shfl(scan, 31), mine = scan - counts;
    const u32 all1 = all & 0x7ff, all2 = all >> 11 & 0x7ff, all3 = all >> 22;
    const u32 bits = 2 * (all1 + all2) + 3 * all3;
    if (ptx::any(all3 < n3) || (bits + 31) >> 5 >= kRawWords) return {kRawWords, false, true};
    const u32 lanes = ptx::ballot(escapes != 0);
    if (lanes != 0 || bits >= 32 * 60) {
#pragma unroll 1
      for (u32 i = lane + 64; i < kStageWords; i += 32) tail[i] = 0;
    }
    ptx::sync_warp();

    place_second(tail, in, n1a, n1b, 2 * (mine & 0x7ff));
    u32 at3 = 2 * (all1 + (mine >> 11 & 0x7ff)), at4 = 2 * (all1 + all2) + 3 * (mine >> 22);
    if (wide) {
      place_wide(tail, source, table, at3, at4, lane);
    } else if (!ptx::any(n2 > 8)) {
      if (n2 != 0) place_deep(tail, deep_a | ptx::funnel_left_clamped(0u, deep_b, 4 * n2a), n2, at3, at4);
    } else {
      place_deep(tail, deep_a, n2a, at3, at4);
      place_deep(tail, deep_b, n2b, at3, at4);
    }
    u32 bytes = (bits + 7) >> 3;
    if (lanes != 0) {
      ptx::sync_warp();
      bytes += place_escapes(tail, source, table, lanes, bytes, lane);
      if ((bytes + 3) >> 2 >= kRawWords) return {kRawWords, false, true};
    }
    return {(bytes + 3) >> 2, lanes != 0, false};
  }
};

}  // namespace tersor::cuda
