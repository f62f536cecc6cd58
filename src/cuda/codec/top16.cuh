// One tile of top16, decoded or encoded by one warp.
//
// A lane's 32 codes are one 16-byte word, 32 bits a sub-block, first value in the lowest nibble.
// Decode: four nibbles are PRMT selectors into the low and the high half of the codebook; their top bits
// choose between. Encode: table[symbol] = the code in all eight nibbles, so that eight values merge by masks.
#pragma once

#include "cuda/codec/dtypes.cuh"
#include "cuda/codec/raw_tile.cuh"
#include "cuda/codec/tile_place.cuh"
#include "cuda/codec/tiles.cuh"
#include "cuda/codec/warp.cuh"

namespace tersor::cuda {

template <class Lane>
struct top16_decoder {
  static constexpr u32 kCodeWidth = 4;
  /// Placed symbols of the codebook; entry 15 is zero so that an escape can be OR-ed in.
  using entries = uint4;
  struct tables {
    TERSOR_DEVICE void fill(u32) {}
  };
  static constexpr u32 kRestBytes = Lane::kRestBytes;
  using rest = typename Lane::rest;
  using row = typename Lane::row;
  static constexpr u32 kRawWords = 32 * (Lane::kSymbolBits - kCodeWidth);
  /// Escapes are read only where they fill the tail's words exactly.
  static constexpr u32 kStageWords = kRawWords < 32 ? 32 : kRawWords;

  static TERSOR_DEVICE entries entries_of(uint4 book) {
    return {ptx::opaque(Lane::place(book.x)), ptx::opaque(Lane::place(book.y)),
            ptx::opaque(Lane::place(book.z)), ptx::opaque(Lane::place(book.w) & 0x00ffffffu)};
  }

  /// The placed symbol of the codebook's first entry, in the low byte.
  static TERSOR_DEVICE u32 first_entry(const entries& e) { return e.x; }

  static TERSOR_DEVICE bool decode(const tables&, const entries& e, const u32* tail, const tile_place& place,
                                   const lane_plane<4>& code, const rest& r, row (&out)[4], u32 lane) {
    if (place.raw()) {
      decode_raw<Lane, 4>(tail, code, r, out, lane);
      return place.words() == kRawWords && !place.escapes();
    }
    if (place.escapes()) {
      return decode_escapes(e, tail, place.words(), code, r, out);
    }
    u32 marks = 0;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      const uint2 x = symbols_of(e, code.w[s]);
      marks |= fifteens(code.w[s]);
      Lane::join(x.x, r, s, 0, out[s]);
      Lane::join(x.y, r, s, 1, out[s]);
    }
    return !ptx::any(marks != 0) && place.words() == 0 && kRawWords != 0;
  }

 private:
  /// Placed symbols of eight values: x = values 0..3, y = 4..7.
  static TERSOR_DEVICE uint2 symbols_of(const entries& e, u32 codes) {
    const u32 low = codes & 0x77777777u, top = codes >> 3 & 0x11111111u;
    uint2 out;
    out.x = ptx::blend(ptx::prmt(e.z, e.w, low), ptx::prmt(e.x, e.y, low), ptx::spread_low_bits(top));
    out.y = ptx::blend(ptx::prmt(e.z, e.w, low >> 16), ptx::prmt(e.x, e.y, low >> 16),
                       ptx::spread_low_bits(top >> 16));
    return out;
  }

  static TERSOR_DEVICE bool decode_escapes(const entries& e, const u32* tail, u32 words,
                                           const lane_plane<4>& code, const rest& r, row (&out)[4]) {
    u32 mine = 0;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) mine += ptx::popc(fifteens(code.w[s]));
    const u32 scan = inclusive_scan(mine), all = ptx::shfl(scan, 31);
    if ((all + 3) >> 2 != words || words == 0 || words == kRawWords) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) out[s] = row{};
      return false;
    }
    const u8* next = reinterpret_cast<const u8*>(tail) + (scan - mine);
    u32 seen = 0;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      uint2 x = symbols_of(e, code.w[s]);
#pragma unroll 1
      for (u32 marks = fifteens(code.w[s]); marks != 0; marks &= marks - 1) {
        const u32 at = ptx::lowest_bit(marks) * 2, symbol = *next++;
        seen |= symbol;
        if (at < 32) {
          x.x |= Lane::place(symbol) << at;
        } else {
          x.y |= Lane::place(symbol) << (at - 32);
        }
      }
      Lane::join(x.x, r, s, 0, out[s]);
      Lane::join(x.y, r, s, 1, out[s]);
    }
    const u32 padding = (all & 3) != 0 ? tail[all >> 2] >> (8 * (all & 3)) : 0;
    return padding == 0 && !ptx::any(seen >> Lane::kSymbolBits != 0);
  }
};

/// What encoding a tile leaves: its tail in shared memory, and this.
struct built_tail {
  u32 words;
  bool escapes, raw;
};

template <class Lane>
struct top16_encoder {
  static constexpr u32 kCodeWidth = 4;
  static constexpr u32 kCodec = 1;
  using table_entry = u32;
  static constexpr u32 kEntries = 15;
  static constexpr u32 kRawWords = 32 * (Lane::kSymbolBits - kCodeWidth);
  static constexpr u32 kStageWords = kRawWords > 0 ? kRawWords : 1;
  using row = typename Lane::row;

  /// `place`: 0..14, or 16 for a symbol outside the codebook.
  static TERSOR_DEVICE table_entry entry_of_place(u32 place) {
    return place < 15 ? 0x11111111u * place : ptx::kFull;
  }

  template <class Source>
  static TERSOR_DEVICE built_tail encode(u32* tail, const u32* table, const row (&x)[4], const Source& source,
                                         lane_plane<4>& code, u32 lane) {
#pragma unroll
    for (u32 s = 0; s < 4; ++s) code.w[s] = encode_eight(table, x[s]);
    return escapes_of(tail, code.w, source, lane);
  }

 private:
  static TERSOR_DEVICE u32 encode_eight(const u32* table, const row& x) {
    const char* base = reinterpret_cast<const char*>(table);
    u32 pair[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      const u32 a = *reinterpret_cast<const u32*>(base + entry_of<Lane, 2>(x, 2 * i));
      const u32 b = *reinterpret_cast<const u32*>(base + entry_of<Lane, 2>(x, 2 * i + 1));
      pair[i] = ptx::blend(b, a, 0xf0f0f0f0u);
    }
    return ptx::blend(ptx::blend(pair[3], pair[2], 0xff00ff00u), ptx::blend(pair[1], pair[0], 0xff00ff00u),
                      0xffff0000u);
  }

  template <class Source>
  static TERSOR_DEVICE built_tail escapes_of(u32* tail, const u32 (&codes)[4], const Source& source,
                                             u32 lane) {
    if constexpr (kRawWords == 0) {
      return {0, false, true};
    } else {
      u32 mine = 0;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) mine += ptx::popc(fifteens(codes[s]));
      if (!ptx::any(mine != 0)) return {0, false, false};
      const u32 scan = inclusive_scan(mine), all = ptx::shfl(scan, 31), words = (all + 3) >> 2;
      if (words >= kRawWords) return {kRawWords, false, true};
      for (u32 i = lane; i < words; i += 32) tail[i] = 0;
      ptx::sync_warp();
      u32 at = scan - mine;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) {
#pragma unroll 1
        for (u32 marks = fifteens(codes[s]); marks != 0; marks &= marks - 1, ++at) {
          const u32 symbol = symbol_of<Lane>(source.value(256 * s + 8 * lane + ptx::lowest_bit(marks) / 4));
          ptx::shared_or(tail + (at >> 2), symbol << (8 * (at & 3)));
        }
      }
      return {words, true, false};
    }
  }
};

}  // namespace tersor::cuda
