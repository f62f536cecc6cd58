// A tile as its chunk's record describes it (spec/frame.md, "Chunk record").
//
// A warp holds what it needs of a chunk's record and its frame's header in one register, one word a lane:
//   lanes 0..5   the record: digest | first word, flags | eight lengths
//   lanes 6, 7   the header's tail words     lanes 8..11  its codebook
//   lanes 12, 13 code and place of the page in the results of encoding, where there are any
#pragma once

#include "cuda/codec/launch.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

/// Ones over the lengths before a tile, for dot_bytes.
struct length_mask {
  u32 low, high;
};

TERSOR_DEVICE length_mask lengths_before(u32 warp) {
  return {warp >= 4 ? 0x01010101u : 0x01010101u & ((1u << 8 * warp) - 1),
          warp > 4 ? 0x01010101u & ((1u << 8 * (warp - 4)) - 1) : 0u};
}

/// Where a tile's tail lies, and in `info`: bits 0-7 words | 8 has escapes | 16 is raw | 24 not to be read.
struct tile_place {
  u64 first;
  u32 info;
  [[nodiscard]] TERSOR_DEVICE u32 words() const { return info & 0xff; }
  [[nodiscard]] TERSOR_DEVICE bool escapes() const { return (info >> 8 & 1) != 0; }
  [[nodiscard]] TERSOR_DEVICE bool raw() const { return (info >> 16 & 1) != 0; }
  [[nodiscard]] TERSOR_DEVICE bool outside() const { return (info >> 24 & 1) != 0; }
};

/// `meta`: see the head of this file. `room` = words that may be read from the tails' start on.
TERSOR_DEVICE tile_place place_of(u32 meta, u32 warp, length_mask before, u64 room, u32 raw_words) {
  const u32 low = ptx::shfl(meta, 2), high = ptx::shfl(meta, 3);
  const u32 lens0 = ptx::shfl(meta, 4), lens1 = ptx::shfl(meta, 5);
  tile_place p;
  const u32 words = ptx::prmt(lens0, lens1, warp) & 0xff;
  p.first = (static_cast<u64>(high & 0xffff) << 32 | low) +
            ptx::dot_bytes(lens0, before.low, ptx::dot_bytes(lens1, before.high, 0u));
  p.info = words | (high >> (16 + warp) & 0x101) << 8;
  if (p.first + words > room || words > raw_words) p.info = 1u << 24;
  return p;
}

/// Whether the record of a chunk with `n_tiles` tiles is possible (spec/frame.md), and the sum of its
/// lengths.
struct record_facts {
  bool good;
  u32 words;
};
TERSOR_DEVICE record_facts judge_record(u32 meta, u32 lane, u32 n_tiles, u64 tail_words, u32 raw_words) {
  const u32 high = ptx::shfl(meta, 3), flags = high >> 16;
  const u32 lens = ptx::shfl(meta, lane < 4 ? 4 : 5);
  const u64 first = static_cast<u64>(high & 0xffff) << 32 | ptx::shfl(meta, 2);
  bool good = true;
  u32 words = 0;
  if (lane < kWarps) {
    words = lens >> (8 * (lane & 3)) & 0xff;
    const bool escapes = (flags >> lane & 1) != 0, raw = (flags >> (8 + lane) & 1) != 0;
    good = !(escapes && raw) &&
           (lane < n_tiles ? (raw ? words == raw_words : words < raw_words) : words == 0 && !escapes && !raw);
  }
  const u32 total = ptx::reduce_add(words);
  return {ptx::all(good) && first <= tail_words && total <= tail_words - first, total};
}

}  // namespace tersor::cuda
