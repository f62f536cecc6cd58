// Unpacks a matrix of layout `tcatbe` and compares the digest of every 64 x 64 tile.
//
// A CTA works on one tile at a time, a warp on each of its strips, while the next tiles come to shared
// memory. The header and the content digest are not looked at: the host has checked them.
#pragma once

#include "cuda/codec/digest.cuh"
#include "cuda/gemm/tcatbe_access.cuh"

namespace tersor::cuda {

struct tcatbe_unpack_shared {
  static constexpr u32 kStages = 3;
  static constexpr u32 kStripWarps = tcatbe_geometry::kStrips, kThreads = 32 * kStripWarps;
  alignas(16) u8 tiles[kStages][kTcatbeTileBytes];
  alignas(16) u8 strips[kStripWarps][kStripBytes];
  alignas(16) u32 places[kStripWarps][32];
  digest_keys<2> keys;
  u64 counts[kStages];
  u64 wanted[kStages + 1];            ///< digests; one is looked at after its stage is filled again
  u64 hashes[2][kStripWarps];         ///< of the strips of this tile and the one before
  u32 disagreements[2][kStripWarps];  ///< between bitmaps and index
};
static_assert(sizeof(tcatbe_unpack_shared::strips) >= kTcatbeOverrun);

/// What `result` is before the first bad tile.
TERSOR_DEVICE void begin_tcatbe_unpack(const tcatbe_unpack_launch& launch) {
  ptx::store(reinterpret_cast<u64*>(launch.result), u64{0xffffffff} << 32);
  ptx::store(&launch.result->n_bytes, launch.matrix.n_bytes);
}

class tcatbe_unpacker {
 public:
  using shared = tcatbe_unpack_shared;

  TERSOR_DEVICE tcatbe_unpacker(const tcatbe_unpack_launch& launch, shared& sh)
      : l_(launch),
        sh_(sh),
        warp_(ptx::thread_index() / 32),
        lane_(ptx::thread_index() % 32, launch.matrix.first_symbol),
        first_(ptx::cta_index()),
        step_(ptx::cta_count()) {}

  TERSOR_DEVICE void run() {
    for (u32 i = ptx::thread_index(); i < 2 * digest_keys<2>::kColumns; i += shared::kThreads)
      sh_.keys.fill(i);
    record_ = record_of(warp_);
    for (u32 turn = 0; turn + 1 < shared::kStages; ++turn) {
      start(turn);
      ptx::end_copies();
    }
    const u32 n = first_ < l_.matrix.n_tiles ? (l_.matrix.n_tiles - first_ + step_ - 1) / step_ : 0;
    for (u32 turn = 0; turn < n; ++turn) {
      ptx::wait_copies<shared::kStages - 2>();
      ptx::barrier();
      if (turn != 0) judge(turn - 1);
      start(turn + shared::kStages - 1);
      ptx::end_copies();
      unpack(turn);
    }
    ptx::barrier();
    if (n != 0) judge(n - 1);
  }

 private:
  [[nodiscard]] TERSOR_DEVICE u64 tile_of(u32 turn) const { return first_ + static_cast<u64>(turn) * step_; }
  [[nodiscard]] TERSOR_DEVICE tcatbe_record record_of(u32 turn) const {
    const u64 tile = tile_of(turn);
    return tile < l_.matrix.n_tiles ? load_record(l_.packed, l_.matrix, static_cast<u32>(tile))
                                    : tcatbe_record{};
  }

  /// Warps take turns.
  TERSOR_DEVICE void start(u32 turn) {
    const u64 tile = tile_of(turn);
    if (tile >= l_.matrix.n_tiles || turn % shared::kStripWarps != warp_) return;
    const u32 stage = turn % shared::kStages;
    start_tile<32>(l_.packed, l_.matrix, static_cast<u32>(tile), record_, lane_.lane, sh_.tiles[stage]);
    if (lane_.lane == 0) {
      sh_.counts[stage] = record_.counts;
      sh_.wanted[turn % (shared::kStages + 1)] =
          ptx::load(reinterpret_cast<const u64*>(l_.packed + l_.matrix.digests_at) + tile);
    }
    record_ = record_of(turn + shared::kStripWarps);
  }

  TERSOR_DEVICE void unpack(u32 turn) {
    const u32 stage = turn % shared::kStages, tile = static_cast<u32>(tile_of(turn));
    const u64 counts = sh_.counts[stage];
    const tcatbe_strip strip(lane_, sh_.tiles[stage], counts, warp_, sh_.places[warp_]);
    uint4 rows[4];
    step<0>(strip, rows);
    step<1>(strip, rows);
    step<2>(strip, rows);
    step<3>(strip, rows);
    if (l_.dst != nullptr) {
      ptx::sync_warp();
      const u32 row_tile = tile / l_.matrix.col_tiles;
      const strip_place place =
          locate_strip(l_.values, row_tile, tile - row_tile * l_.matrix.col_tiles, warp_);
      store_strip(l_.values, l_.dst, place, lane_.lane, sh_.strips[warp_]);
    }
    const tile_sums sums = digest_of(sh_.keys, rows, lane_.lane);
    if (lane_.lane != 31) return;
    const u32 up_to = static_cast<u32>(counts >> (16 * warp_)) & 0xffffu;
    sh_.disagreements[turn % 2][warp_] = coded_before(counts, warp_) + strip.n_coded() != up_to ? 1 : 0;
    const u64 number = static_cast<u64>(tile) * tcatbe_geometry::kStrips + warp_;
    sh_.hashes[turn % 2][warp_] =
        chain_next(chain_next(chain_start(digest_domain::matrix_block, number), sums.second), sums.first);
  }

  /// A step's values to `row`, in the order of the digest, and to their places in the strip.
  template <u32 q>
  TERSOR_DEVICE void step(const tcatbe_strip& strip, uint4 (&rows)[4]) {
    u32 a[4];
    strip.template decode<q>(a);
    rows[q] = make_uint4(a[0], a[1], a[2], a[3]);
#pragma unroll
    for (u32 r = 0; r < 4; ++r) *strip_pair(sh_.strips[warp_], 4 * q + r, lane_.lane) = a[r];
  }

  /// All warps are behind the barrier that ended the turn.
  TERSOR_DEVICE void judge(u32 turn) {
    if (ptx::thread_index() != 0) return;
    u64 hash = 0;
    u32 disagreements = 0;
#pragma unroll
    for (u32 w = 0; w < shared::kStripWarps; ++w) {
      hash += sh_.hashes[turn % 2][w];
      disagreements |= sh_.disagreements[turn % 2][w];
    }
    if (l_.result == nullptr || (disagreements == 0 && hash == sh_.wanted[turn % (shared::kStages + 1)]))
      return;
    ptx::atomic_min(reinterpret_cast<u64*>(l_.result),
                    tile_of(turn) << 32 | static_cast<u32>(kDigestMismatch));
  }

  const tcatbe_unpack_launch& l_;
  shared& sh_;
  u32 warp_;
  tcatbe_lane lane_;
  u32 first_, step_;
  tcatbe_record record_;  ///< of the warp's next tile to copy
};

TERSOR_DEVICE void tcatbe_unpack_cta(const tcatbe_unpack_launch& launch, tcatbe_unpack_shared& shared) {
  tcatbe_unpacker(launch, shared).run();
}

}  // namespace tersor::cuda
