// Packs a matrix into layout `tcatbe`, byte for byte as the CPU does, in the passes of kTcatbePackPasses.
#pragma once

#include "cuda/codec/digest.cuh"
#include "cuda/gemm/tcatbe_access.cuh"

namespace tersor::cuda {

TERSOR_DEVICE u64 tcatbe_warp_sum(u64 value) {
  for (u32 step = 1; step < 32; step <<= 1) value += ptx::shfl_xor(value, step);
  return value;
}

/// Strip number `strip` of tile `tile`.
TERSOR_DEVICE strip_place strip_of_tile(const tcatbe_pack_launch& l, u32 tile, u32 strip) {
  const u32 row_tile = tile / l.matrix.col_tiles;
  return locate_strip(l.values, row_tile, tile - row_tile * l.matrix.col_tiles, strip);
}

// ---- passes 0 and 1: the window ----

struct tcatbe_count_shared {
  alignas(16) u8 strips[kWarps][kStripBytes];
  u32 counts[kWarps][256];
};

/// A warp counts the exponents of tiles.
TERSOR_DEVICE void count_exponents_cta(const tcatbe_pack_launch& l, tcatbe_count_shared& sh) {
  const u32 thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  for (u32 i = lane; i < 256; i += 32) sh.counts[warp][i] = 0;
  ptx::sync_warp();
  const u64 n_strips = static_cast<u64>(l.matrix.n_tiles) * tcatbe_geometry::kStrips;
  for (u64 i = static_cast<u64>(ptx::cta_index()) * kWarps + warp; i < n_strips;
       i += static_cast<u64>(ptx::cta_count()) * kWarps) {
    const strip_place place = strip_of_tile(l, static_cast<u32>(i / tcatbe_geometry::kStrips),
                                            static_cast<u32>(i % tcatbe_geometry::kStrips));
    load_strip(l.values, l.src, place, 0, lane, sh.strips[warp]);
    ptx::sync_warp();
    for (u32 k = lane; k < tcatbe_geometry::kStripValues; k += 32) {
      const u32 row = k / tcatbe_geometry::kSide, col = k % tcatbe_geometry::kSide;
      if (row < place.rows && col < place.cols)
        ptx::shared_add(&sh.counts[warp][*strip_value(sh.strips[warp], row, col) >> 7 & 0xffu], 1u);
    }
    ptx::sync_warp();
  }
  ptx::barrier();
  if (thread >= 256) return;
  u64 sum = 0;
  for (u32 w = 0; w < kWarps; ++w) sum += sh.counts[w][thread];
  if (sum != 0) ptx::atomic_add(&l.totals->counts[thread], sum);
}

struct tcatbe_window_shared {
  u64 counts[256];
};

/// The window with most values, the lowest of equals. One CTA of 256 threads.
TERSOR_DEVICE void choose_window_cta(const tcatbe_pack_launch& l, tcatbe_window_shared& sh) {
  const u32 thread = ptx::thread_index();
  if (thread < 256) sh.counts[thread] = ptx::load(&l.totals->counts[thread]);
  ptx::barrier();
  if (thread != 0) return;
  u64 inside = 0;
  for (u32 i = 0; i < tcatbe_geometry::kCodes; ++i) inside += sh.counts[i];
  u64 most = inside;
  u32 best = 0;
  for (u32 first = 1; first <= tcatbe_geometry::kLastWindow; ++first) {
    inside += sh.counts[first + tcatbe_geometry::kCodes - 1] - sh.counts[first - 1];
    if (inside <= most) continue;
    most = inside;
    best = first;
  }
  ptx::store(&l.totals->first_symbol, best);
}

// ---- passes 2 and 3: the places of tiles ----

struct tcatbe_strips_shared {
  alignas(16) u8 strips[kWarps][kStripBytes];
};

/// A warp counts the coded values of a tile.
TERSOR_DEVICE void count_tiles_cta(const tcatbe_pack_launch& l, tcatbe_strips_shared& sh) {
  const u32 warp = ptx::thread_index() / 32, lane = ptx::thread_index() % 32;
  const u32 first = ptx::load(&l.totals->first_symbol), padding = codec_detail::tcatbe_padding(first);
  u64* index = reinterpret_cast<u64*>(l.packed + l.matrix.index_at);
  for (u64 tile = static_cast<u64>(ptx::cta_index()) * kWarps + warp; tile < l.matrix.n_tiles;
       tile += static_cast<u64>(ptx::cta_count()) * kWarps) {
    u64 word = 0;
    u32 n = 0;
    for (u32 s = 0; s < tcatbe_geometry::kStrips; ++s) {
      load_strip(l.values, l.src, strip_of_tile(l, static_cast<u32>(tile), s), padding, lane,
                 sh.strips[warp]);
      ptx::sync_warp();
      u32 coded = 0;
      for (u32 t = 0; t < tcatbe_geometry::kSmallTiles; ++t) {
        const u32 pair = *strip_pair(sh.strips[warp], t, lane);
        coded += codec_detail::tcatbe_code(pair & 0xffffu, first) != 0 ? 1u : 0u;
        coded += codec_detail::tcatbe_code(pair >> 16, first) != 0 ? 1u : 0u;
      }
      n += ptx::reduce_add(coded);
      word |= static_cast<u64>(n) << (16 * s);
      ptx::sync_warp();
    }
    if (lane == 0) ptx::store(index + 3 * tile + 2, word);
  }
}

/// Threads of the CTA of pass 3, and tiles that each takes at a time.
inline constexpr u32 kTcatbePlaceThreads = 1024, kTcatbePlaceTiles = 4;

struct tcatbe_place_shared {
  u32 coded[kTcatbePlaceThreads / 32], escapes[kTcatbePlaceThreads / 32], n_escapes[kTcatbePlaceThreads / 32];
};

/// Turns counts into places.
TERSOR_DEVICE void place_tiles_cta(const tcatbe_pack_launch& l, tcatbe_place_shared& sh) {
  const u32 thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  u64* index = reinterpret_cast<u64*>(l.packed + l.matrix.index_at);
  u64 coded = 0, escapes = 0, n_escapes = 0;
  for (u64 from = 0; from < l.matrix.n_tiles; from += kTcatbePlaceThreads * kTcatbePlaceTiles) {
    const u64 mine = from + kTcatbePlaceTiles * thread;
    u32 coded_bytes[kTcatbePlaceTiles], escape_bytes[kTcatbePlaceTiles];
    u32 my_coded = 0, my_escapes = 0, my_number = 0;
#pragma unroll
    for (u32 k = 0; k < kTcatbePlaceTiles; ++k) {
      const bool there = mine + k < l.matrix.n_tiles;
      const u32 n = there ? coded_of(ptx::load(index + 3 * (mine + k) + 2)) : 0;
      coded_bytes[k] = there ? codec_detail::tcatbe_coded_bytes(n) : 0;
      escape_bytes[k] = there ? codec_detail::tcatbe_escape_bytes(n) : 0;
      my_number += there ? tcatbe_geometry::kValues - n : 0;
      my_coded += coded_bytes[k];
      my_escapes += escape_bytes[k];
    }
    const u32 coded_up_to = inclusive_scan(my_coded), escapes_up_to = inclusive_scan(my_escapes);
    const u32 number = ptx::reduce_add(my_number);
    if (lane == 31) {
      sh.coded[warp] = coded_up_to;
      sh.escapes[warp] = escapes_up_to;
      sh.n_escapes[warp] = number;
    }
    ptx::barrier();
    u64 coded_at = coded + coded_up_to - my_coded, escape_at = escapes + escapes_up_to - my_escapes;
    for (u32 w = 0; w < kTcatbePlaceThreads / 32; ++w) {
      if (w < warp) {
        coded_at += sh.coded[w];
        escape_at += sh.escapes[w];
      }
      coded += sh.coded[w];
      escapes += sh.escapes[w];
      n_escapes += sh.n_escapes[w];
    }
    ptx::barrier();
#pragma unroll
    for (u32 k = 0; k < kTcatbePlaceTiles; ++k) {
      if (mine + k >= l.matrix.n_tiles) break;
      ptx::store(index + 3 * (mine + k), coded_at);
      ptx::store(index + 3 * (mine + k) + 1, escape_at);
      coded_at += coded_bytes[k];
      escape_at += escape_bytes[k];
    }
  }
  if (thread != 0) return;
  ptx::store(&l.totals->coded_bytes, coded);
  ptx::store(&l.totals->escape_bytes, escapes);
  ptx::store(&l.totals->n_escapes, n_escapes);
}

// ---- pass 4: the tiles ----

struct tcatbe_write_shared {
  static constexpr u32 kStripWarps = tcatbe_geometry::kStrips, kThreads = 32 * kStripWarps;
  alignas(16) u8 strips[kStripWarps][kStripBytes];
  alignas(16) u8 coded[tcatbe_geometry::kValues];
  alignas(16) u8 escapes[2 * tcatbe_geometry::kValues];
  digest_keys<2> keys;
  u64 hashes[kStripWarps];
  u32 is_last;
};

/// Where everything ends, once the values are counted.
struct tcatbe_end {
  u64 escapes_at, n_bytes;
  bool fits;
};
TERSOR_DEVICE tcatbe_end tcatbe_end_of(const tcatbe_pack_launch& l) {
  constexpr u64 kMask = tcatbe_geometry::kSectionAlignment - 1;
  tcatbe_end end;
  end.escapes_at = (l.matrix.coded_at + ptx::load(&l.totals->coded_bytes) + kMask) & ~kMask;
  end.n_bytes = (end.escapes_at + ptx::load(&l.totals->escape_bytes) + kMask) & ~kMask;
  end.fits = end.n_bytes <= l.capacity;
  return end;
}

class tcatbe_writer {
 public:
  using shared = tcatbe_write_shared;

  TERSOR_DEVICE tcatbe_writer(const tcatbe_pack_launch& launch, shared& sh)
      : l_(launch),
        sh_(sh),
        thread_(ptx::thread_index()),
        warp_(thread_ / 32),
        lane_(thread_ % 32),
        first_symbol_(ptx::load(&launch.totals->first_symbol)),
        end_(tcatbe_end_of(launch)) {}

  TERSOR_DEVICE void run() {
    for (u32 i = thread_; i < 2 * digest_keys<2>::kColumns; i += shared::kThreads) sh_.keys.fill(i);
    ptx::barrier();
    u64 content = 0;
    if (end_.fits) {
      for (u64 tile = ptx::cta_index(); tile < l_.matrix.n_tiles; tile += ptx::cta_count())
        content += write_tile(static_cast<u32>(tile));
      if (thread_ == 0) ptx::atomic_add(&l_.totals->content, content);
      if (ptx::cta_index() == 0) clear_gaps();
    }
    if (is_last() && thread_ < 32) write_header();
  }

 private:
  /// The tile's share of the content digest, for thread 0.
  TERSOR_DEVICE u64 write_tile(u32 tile) {
    const tcatbe_record record = load_record(l_.packed, l_.matrix, tile);
    write_strip(tile, coded_before(record.counts, warp_));
    ptx::barrier();
    const u32 n_coded = coded_of(record.counts), n_escapes = tcatbe_geometry::kValues - n_coded;
    const u32 coded_bytes = codec_detail::tcatbe_coded_bytes(n_coded);
    const u32 escape_bytes = codec_detail::tcatbe_escape_bytes(n_coded);
    put_stream(sh_.coded, n_coded, coded_bytes, l_.packed + l_.matrix.coded_at + record.coded);
    put_stream(sh_.escapes, 2 * n_escapes, escape_bytes, l_.packed + end_.escapes_at + record.escapes);
    u64 digest = 0;
    for (u32 w = 0; w < shared::kStripWarps; ++w) digest += sh_.hashes[w];
    if (thread_ == 0) ptx::store(reinterpret_cast<u64*>(l_.packed + l_.matrix.digests_at) + tile, digest);
    ptx::barrier();
    return chain_next(chain_next(chain_start(digest_domain::matrix_index, tile), digest), record.counts);
  }

  /// `n_used` bytes from shared memory and zeros up to `n_bytes`, a multiple of 16.
  TERSOR_DEVICE void put_stream(const u8* from, u32 n_used, u32 n_bytes, u8* to) {
    for (u32 at = 16 * thread_; at < n_bytes; at += 16 * shared::kThreads) {
      const uint4 piece = *reinterpret_cast<const uint4*>(from + at);
      const u32 n = n_used - at;
      ptx::store(reinterpret_cast<uint4*>(to + at),
                 make_uint4(keep_bytes(piece.x, n), keep_bytes(piece.y, n - 4, n > 4),
                            keep_bytes(piece.z, n - 8, n > 8), keep_bytes(piece.w, n - 12, n > 12)));
    }
  }
  /// The low `n` bytes.
  [[nodiscard]] static TERSOR_DEVICE u32 keep_bytes(u32 word, u32 n, bool some = true) {
    return some ? keep_low(word, n < 4 ? 8 * n : 32) : 0;
  }

  TERSOR_DEVICE void write_strip(u32 tile, u32 n_coded) {
    u8* strip = sh_.strips[warp_];
    load_strip(l_.values, l_.src, strip_of_tile(l_, tile, warp_), codec_detail::tcatbe_padding(first_symbol_),
               lane_, strip);
    ptx::sync_warp();
    u32 words[tcatbe_geometry::kPlanes] = {};
    u32 values = warp_ * tcatbe_geometry::kStripValues;
    tile_digest<2> digest(sh_.keys, lane_);
    step<0>(strip, n_coded, values, words, digest);
    step<1>(strip, n_coded, values, words, digest);
    step<2>(strip, n_coded, values, words, digest);
    step<3>(strip, n_coded, values, words, digest);
    u32* bitmaps = reinterpret_cast<u32*>(l_.packed + tcatbe_geometry::kHeaderBytes +
                                          static_cast<u64>(tile) * tcatbe_geometry::kBitmapBytes) +
                   warp_ * tcatbe_geometry::kStripWords;
#pragma unroll
    for (u32 k = 0; k < tcatbe_geometry::kPlanes; ++k)
      ptx::store(bitmaps + k * tcatbe_geometry::kPlaneWords + lane_, words[k]);
    const tile_sums sums = digest.finish();
    const u64 number = static_cast<u64>(tile) * tcatbe_geometry::kStrips + warp_;
    if (lane_ == 0)
      sh_.hashes[warp_] =
          chain_next(chain_next(chain_start(digest_domain::matrix_block, number), sums.second), sums.first);
  }

  template <u32 q>
  TERSOR_DEVICE void step(u8* strip, u32& n_coded, u32& values, u32 (&words)[3], tile_digest<2>& digest) {
    u32 pairs[4];
#pragma unroll
    for (u32 r = 0; r < 4; ++r) {
      pairs[r] = *strip_pair(strip, 4 * q + r, lane_);
      small_tile(4 * q + r, pairs[r], n_coded, values, words);
    }
    digest.template add<q>(make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
  }

  /// An 8 x 8 tile: its bitmaps to the lanes that store them, its values to the streams. `n_coded`, `values`:
  /// before the tile; lane 16 word + tile keeps a word.
  TERSOR_DEVICE void small_tile(u32 tile, u32 pair, u32& n_coded, u32& values, u32 (&words)[3]) {
    const u32 low = pair & 0xffffu, high = pair >> 16;
    const u32 low_code = codec_detail::tcatbe_code(low, first_symbol_);
    const u32 high_code = codec_detail::tcatbe_code(high, first_symbol_);
#pragma unroll
    for (u32 k = 0; k < tcatbe_geometry::kPlanes; ++k) {
      const u32 lows = ptx::ballot((low_code >> k & 1) != 0), highs = ptx::ballot((high_code >> k & 1) != 0);
      if (lane_ == tile) words[k] = (lows & 0xffffu) | highs << 16;
      if (lane_ == tcatbe_geometry::kSmallTiles + tile) words[k] = lows >> 16 | (highs & 0xffff0000u);
    }
    const u32 lows = ptx::ballot(low_code != 0), highs = ptx::ballot(high_code != 0),
              below = (1u << lane_) - 1;
    u32 at = n_coded + ptx::popc(lows & below) + ptx::popc(highs & below);
    const u32 position = values + 2 * lane_;
    put(low, low_code != 0, at, position - at);
    if (low_code != 0) ++at;
    put(high, high_code != 0, at, position + 1 - at);
    n_coded += ptx::popc(lows) + ptx::popc(highs);
    values += 64;
  }
  TERSOR_DEVICE void put(u32 value, bool is_coded, u32 coded_before, u32 escapes_before) {
    if (is_coded) {
      sh_.coded[coded_before] = static_cast<u8>((value >> 8 & 0x80u) | (value & 0x7fu));
    } else {
      reinterpret_cast<u16*>(sh_.escapes)[escapes_before] = static_cast<u16>(value);
    }
  }

  TERSOR_DEVICE void clear_gaps() {
    const u64 n = l_.matrix.n_tiles;
    clear(l_.matrix.index_at + n * tcatbe_geometry::kRecordBytes, l_.matrix.digests_at);
    clear(l_.matrix.digests_at + 8 * n, l_.matrix.coded_at);
    clear(l_.matrix.coded_at + ptx::load(&l_.totals->coded_bytes), end_.escapes_at);
    clear(end_.escapes_at + ptx::load(&l_.totals->escape_bytes), end_.n_bytes);
  }
  /// Fewer bytes than sections are aligned to, a multiple of 4.
  TERSOR_DEVICE void clear(u64 from, u64 to) {
    if (from + 4 * thread_ < to) ptx::store(reinterpret_cast<u32*>(l_.packed + from) + thread_, 0u);
  }

  [[nodiscard]] TERSOR_DEVICE bool is_last() {
    ptx::fence();
    ptx::barrier();
    if (thread_ == 0) {
      sh_.is_last = ptx::atomic_add(&l_.totals->done, 1u) + 1 == ptx::cta_count() ? 1 : 0;
      ptx::fence();
    }
    ptx::barrier();
    return sh_.is_last != 0;
  }

  [[nodiscard]] TERSOR_DEVICE u64 header_word(u32 i) {
    switch (i) {
      case 0:
        return l_.first_word;
      case 1:
        return l_.values.rows;
      case 2:
        return l_.values.cols;
      case 3:
        return end_.n_bytes;
      case 4:
        return first_symbol_;
      case 6:
        return tcatbe_geometry::kHeaderBytes;
      case 7:
        return end_.escapes_at;
      case 8:
        return ptx::load(&l_.totals->n_escapes);
      case 9:
        return l_.matrix.digests_at;
      case 10:
        return ptx::atomic_add(&l_.totals->content, u64{0});
      case 11:
        return l_.matrix.index_at;
      case 12:
        return l_.matrix.coded_at;
      case 13:
        return ptx::load(&l_.totals->coded_bytes);
      case 14:
        return ptx::load(&l_.totals->escape_bytes);
      default:
        return 0;
    }
  }
  /// A word a lane. The header of a matrix that does not fit is zero.
  TERSOR_DEVICE void write_header() {
    u64 word = header_word(lane_);
    const bool inside = lane_ < kMatrixHeaderWords;
    const u64 digest =
        tcatbe_warp_sum(inside ? chain_next(chain_start(digest_domain::matrix_header, lane_), word) : 0);
    if (lane_ == kMatrixDigestWord) word = digest;
    if (inside) ptx::store(reinterpret_cast<u64*>(l_.packed) + lane_, end_.fits ? word : 0);
    if (lane_ != 0) return;
    ptx::store(l_.result,
               matrix_result_slot{end_.fits ? kOk : kDestinationTooSmall, 0xffffffffu, end_.n_bytes});
  }

  const tcatbe_pack_launch& l_;
  shared& sh_;
  u32 thread_, warp_, lane_, first_symbol_;
  tcatbe_end end_;
};

TERSOR_DEVICE void write_tiles_cta(const tcatbe_pack_launch& launch, tcatbe_write_shared& shared) {
  tcatbe_writer(launch, shared).run();
}

}  // namespace tersor::cuda
