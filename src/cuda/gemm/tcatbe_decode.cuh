// From bitmaps and streams of a `tcatbe` tile to the A fragments of mma.m16n8k16 (layout:
// codec/tcatbe_layout.hpp).
#pragma once

#include "cuda/codec/warp.cuh"
#include "cuda/gemm/tcatbe_launch.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

using tcatbe_geometry = codec_detail::tcatbe_geometry;

/// What an index record says.
struct tcatbe_record {
  u64 coded = 0, escapes = 0, counts = 0;
};
/// Coded values of a tile, and those before a strip, from the counts of its record. Whatever they are, there
/// are never more coded values than values.
TERSOR_DEVICE u32 coded_of(u64 counts) {
  const u32 n = static_cast<u32>(counts >> 48);
  return n < tcatbe_geometry::kValues ? n : tcatbe_geometry::kValues;
}
TERSOR_DEVICE u32 coded_before(u64 counts, u32 strip) {
  const u32 n = static_cast<u32>(counts << 16 >> (16 * strip)) & 0xffffu;
  return n < strip * tcatbe_geometry::kStripValues ? n : strip * tcatbe_geometry::kStripValues;
}

TERSOR_DEVICE tcatbe_record load_record(const u8* packed, const tcatbe_matrix& m, u32 tile) {
  const u64* words = reinterpret_cast<const u64*>(packed + m.index_at) + 3 * static_cast<u64>(tile);
  return {ptx::load(words), ptx::load(words + 1), ptx::load(words + 2)};
}

/// How far behind its tile a record that contradicts the bitmaps can lead a read.
inline constexpr u32 kTcatbeOverrun = 4096;

/// Starts a thread's share of copying `n_bytes`, at most `kMost`.
template <u32 kThreads, u32 kMost>
TERSOR_DEVICE void copy_pieces(const u8* from, u32 n_bytes, u32 thread, u8* to) {
#pragma unroll
  for (u32 first = 0; first < kMost; first += 16 * kThreads) {
    const u32 at = first + 16 * thread;
    if (at < n_bytes) ptx::copy_16(to + at, from + at);
  }
}

/// Starts the copies of thread `thread` of `kThreads` that bring a tile to shared memory. What a forged
/// record places outside the matrix is not copied.
template <u32 kThreads>
TERSOR_DEVICE void start_tile(const u8* packed, const tcatbe_matrix& m, u32 tile, const tcatbe_record& r,
                              u32 thread, u8* to) {
  const u8* bitmaps =
      packed + tcatbe_geometry::kHeaderBytes + static_cast<u64>(tile) * tcatbe_geometry::kBitmapBytes;
  copy_pieces<kThreads, tcatbe_geometry::kBitmapBytes>(bitmaps, tcatbe_geometry::kBitmapBytes, thread, to);
  const u32 n_coded = coded_of(r.counts);
  const u32 coded_bytes = codec_detail::tcatbe_coded_bytes(n_coded);
  const u32 escape_bytes = codec_detail::tcatbe_escape_bytes(n_coded);
  const u64 coded_room = m.escapes_at - m.coded_at, escape_room = m.n_bytes - m.escapes_at;
  const bool inside = r.coded <= coded_room && coded_room - r.coded >= coded_bytes &&
                      r.escapes <= escape_room && escape_room - r.escapes >= escape_bytes &&
                      ((r.coded | r.escapes) & 15) == 0;
  if (!inside) return;
  u8* to_coded = to + tcatbe_geometry::kBitmapBytes;
  copy_pieces<kThreads, tcatbe_geometry::kValues>(packed + m.coded_at + r.coded, coded_bytes, thread,
                                                  to_coded);
  // Escapes are few, as a rule. Other threads than those with the last pieces of the coded values go first.
  const u8* escapes = packed + m.escapes_at + r.escapes;
#pragma unroll 1
  for (u32 at = 16 * (thread ^ kThreads / 2); at < escape_bytes; at += 16 * kThreads)
    ptx::copy_16(to_coded + coded_bytes + at, escapes + at);
}

/// What never changes for a lane.
struct tcatbe_lane {
  u32 lane;
  u32 before;             ///< bits of lower lanes in a bitmap word
  u32 own_low, own_high;  ///< the lane's bits
  u32 turns[3];           ///< that bring them to bits 7 + k and 23 + k
  u32 base;               ///< exponent of code 0, at its places in a pair

  TERSOR_DEVICE tcatbe_lane(u32 lane_index, u32 first_symbol) : lane(lane_index) {
    const u32 bit = lane % 16;
    before = ((1u << bit) - 1) * 0x00010001u;
    own_low = 1u << bit;
    own_high = 0x10000u << bit;
    turns[0] = (bit - 7) & 31;
    turns[1] = (bit - 8) & 31;
    turns[2] = (bit - 9) & 31;
    // Bit 16, which nobody looks at, is for the lower value to borrow from: an escape when the window begins
    // at 0.
    base = (first_symbol - 1) * 0x00800080u + 0x00010000u;
  }
};

/// The lane's two values of an 8 x 8 tile from its words of the three planes. `place`: coded values of the 64
/// x 64 tile before the words; `escapes`: where the lane's first value would be if all values before it were
/// escapes.
TERSOR_DEVICE u32 decode_pair(const tcatbe_lane& l, u32 w0, u32 w1, u32 w2, u32 place, const u8* coded,
                              const u16* escapes) {
  const u32 is_coded = w0 | w1 | w2;
  const bool low_escapes = (is_coded & l.own_low) == 0, high_escapes = (is_coded & l.own_high) == 0;
  const u32 at = place + ptx::popc(is_coded & l.before);
  // Extended bytes have the sign at bit 15 too. The value behind the tile's last one is read, but not used.
  const signed char* rest = reinterpret_cast<const signed char*>(coded) + at;
  u32 low = static_cast<u32>(static_cast<int>(rest[0]));
  u32 high = static_cast<u32>(static_cast<int>(rest[1]));
  if (low_escapes) high = low;
  u32 codes = ptx::funnel_right(w2, w2, l.turns[2]) & 0x02000200u;
  codes |= ptx::funnel_right(w1, w1, l.turns[1]) & 0x01000100u;
  codes |= ptx::funnel_right(w0, w0, l.turns[0]) & 0x00800080u;
  codes += l.base;
  low = ptx::blend(low, codes, 0x807fu);
  high = ptx::blend(high << 16, codes, 0x807f0000u);
  const u16* escape = escapes - static_cast<int>(at);
  if (low_escapes) low = *escape++;
  if (high_escapes) high = static_cast<u32>(*escape) << 16;
  return ptx::prmt(low, high, 0x7610);
}

/// A strip in shared memory as a warp decodes it.
class tcatbe_strip {
 public:
  /// `places`: 32 words of the warp's own. All lanes call.
  TERSOR_DEVICE tcatbe_strip(const tcatbe_lane& l, const u8* tile, u64 counts, u32 strip, u32* places)
      : l_(l),
        words_(reinterpret_cast<const u32*>(tile) + strip * tcatbe_geometry::kStripWords),
        coded_(tile + tcatbe_geometry::kBitmapBytes),
        escapes_(reinterpret_cast<const u16*>(coded_ + codec_detail::tcatbe_coded_bytes(coded_of(counts))) +
                 strip * tcatbe_geometry::kStripValues + 2 * l.lane),
        places_(places) {
    // Lane 2 t + w counts word w of tile t.
    const u32 at = l.lane % 2 * tcatbe_geometry::kSmallTiles + l.lane / 2;
    const u32 count = ptx::popc(words_[at] | words_[tcatbe_geometry::kPlaneWords + at] |
                                words_[2 * tcatbe_geometry::kPlaneWords + at]);
    const u32 up_to = inclusive_scan(count);
    places_[at] = coded_before(counts, strip) + up_to - count;
    n_coded_ = up_to;
    ptx::sync_warp();
  }

  /// Coded values up to and including the lane's word; of the strip in lane 31.
  [[nodiscard]] TERSOR_DEVICE u32 n_coded() const { return n_coded_; }

  /// The A fragment of step q.
  template <u32 q>
  TERSOR_DEVICE void decode(u32 (&a)[4]) const {
    const u32 from = l_.lane / 16 * tcatbe_geometry::kSmallTiles + 4 * q;
    const uint4 w0 = *reinterpret_cast<const uint4*>(words_ + from);
    const uint4 w1 = *reinterpret_cast<const uint4*>(words_ + tcatbe_geometry::kPlaneWords + from);
    const uint4 w2 = *reinterpret_cast<const uint4*>(words_ + 2 * tcatbe_geometry::kPlaneWords + from);
    const uint4 places = *reinterpret_cast<const uint4*>(places_ + from);
    a[0] = decode_pair(l_, w0.x, w1.x, w2.x, places.x, coded_, escapes_ + 256 * q);
    a[1] = decode_pair(l_, w0.y, w1.y, w2.y, places.y, coded_, escapes_ + 256 * q + 64);
    a[2] = decode_pair(l_, w0.z, w1.z, w2.z, places.z, coded_, escapes_ + 256 * q + 128);
    a[3] = decode_pair(l_, w0.w, w1.w, w2.w, places.w, coded_, escapes_ + 256 * q + 192);
  }

 private:
  const tcatbe_lane& l_;
  const u32* words_;
  const u8* coded_;
  const u16* escapes_;
  u32* places_;
  u32 n_coded_;
};

}  // namespace tersor::cuda
