// The exact canonical codebook of a group's values (spec/codecs.md section 3), in one pass and one launch.
//
// Each lane counts in a column of its own, so a warp's 32 additions never meet. The CTA that finishes a group
// last turns the counts into a codebook: a symbol's place is the number of symbols that come before it.
//
// Shared: values[8 warps][2 tiles] | counts[symbols][32 lanes]
#pragma once

#include "cuda/codec/encode_kernel.cuh"

namespace tersor::cuda {

/// Counts of one group in the workspace; zero before and after each call.
struct symbol_counts {
  u64 counts[256];
  u32 done;
  u32 reserved;
};

template <u32 kValueBytes>
struct histogram_shared {
  alignas(16) u8 values[kWarps][kStages][1024 * kValueBytes];
  u32 counts[256][32];
  u64 totals[256];
  u8 book[16];
  u32 last;
};

/// Where a group's codebook goes.
struct codebook_target {
  symbol_counts* counts;  ///< one a group
  u8* books;              ///< 16 bytes a group
  u32 n_entries;          ///< 15 or 16
};

template <class Lane, class Work>
class histogram_cta {
 public:
  static constexpr u32 kSymbols = 1u << Lane::kSymbolBits;
  using shared = histogram_shared<Lane::kValueBytes>;

  TERSOR_DEVICE histogram_cta(const Work& work, shared& sh) : work_(work), sh_(sh) {}

  TERSOR_DEVICE void run(symbol_counts* counts, u8* book, u32 n_entries) {
    const u32 thread = ptx::thread_index(), lane = thread & 31, warp = thread >> 5;
    for (u32 i = 0; i < 32; ++i) sh_.counts[thread][i] = 0;
    ptx::barrier();
    const u32 n = work_.n_chunks();
    u32 turn = 0;
    fetch(work_.first(), turn, warp, lane);
    for (u32 v = work_.first(); v < n; v += work_.step(), ++turn) {
      fetch(v + work_.step(), turn + 1, warp, lane);
      const u32 tile = kWarps * work_.locate(v).chunk + warp;
      ptx::wait_copies<1>();
      ptx::sync_warp();
      if (tile < work_.shape().n_tiles)
        count_tile({sh_.values[warp][turn % kStages], tile_values(work_.shape(), tile), 0}, lane);
      ptx::sync_warp();
    }
    ptx::barrier();
    if (thread < kSymbols) {
      u64 sum = 0;
      for (u32 i = 0; i < 32; ++i) sum += sh_.counts[thread][(i + lane) & 31];
      if (sum != 0) ptx::atomic_add(&counts->counts[thread], sum);
    }
    ptx::fence();
    ptx::barrier();
    if (thread == 0) {
      sh_.last = ptx::atomic_add(&counts->done, 1u) + 1 == work_.step() ? 1 : 0;
      ptx::fence();
    }
    ptx::barrier();
    if (sh_.last != 0) make_book(counts, book, n_entries, thread);
  }

 private:
  TERSOR_DEVICE void fetch(u32 v, u32 turn, u32 warp, u32 lane) {
    if (v < work_.n_chunks()) {
      const chunk_place at = work_.locate(v);
      const u32 tile = kWarps * at.chunk + warp;
      const auto tiles = work_.template tiles<Lane>(at.frame);
      if (tile < work_.shape().n_tiles)
        tiles.fetch(sh_.values[warp][turn % kStages], tile, lane, tiles.id_of(tile));
    }
    ptx::end_copies();
  }

  TERSOR_DEVICE void count_tile(const staged_tile<Lane>& tile, u32 lane) {
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      const u32 live = row_values(tile.n_values, s, lane);
      const auto x = tile.raw_row(s, lane);
#pragma unroll
      for (u32 i = 0; i < 8; ++i) {
        if (i < live) ptx::shared_add(&sh_.counts[0][0] + entry_of<Lane, 5>(x, i) + lane, 1);
      }
    }
  }

  TERSOR_DEVICE void make_book(symbol_counts* counts, u8* book, u32 n_entries, u32 thread) {
    if (thread < kSymbols) sh_.totals[thread] = ptx::atomic_exchange(&counts->counts[thread], 0);
    if (thread < 16) sh_.book[thread] = 0;
    if (thread == 0) ptx::atomic_exchange(&counts->done, 0u);
    ptx::barrier();
    if (thread < kSymbols) {
      const u64 mine = sh_.totals[thread];
      u32 place = 0;
      for (u32 i = 0; i < kSymbols; ++i) {
        const u64 other = sh_.totals[i];
        place += other > mine || (other == mine && i < thread) ? 1 : 0;
      }
      if (place < n_entries) sh_.book[place] = static_cast<u8>(thread);
    }
    ptx::barrier();
    if (thread < 16) ptx::store(book + thread, sh_.book[thread]);
  }

  const Work& work_;
  shared& sh_;
};

template <class Lane>
TERSOR_DEVICE void histogram_cta_of(const one_tensor_launch& launch, const codebook_target& to,
                                    histogram_shared<Lane::kValueBytes>& shared) {
  const auto work = work_of(launch, ptx::cta_index());
  histogram_cta<Lane, tensor_work<one_tensor_launch>>(work, shared).run(to.counts, to.books, to.n_entries);
}
template <class Lane>
TERSOR_DEVICE void histogram_cta_of(const page_launch& launch, const codebook_target& to,
                                    histogram_shared<Lane::kValueBytes>& shared) {
  const page_work work(launch, ptx::cta_index());
  const u32 group = ptx::cta_index() / launch.ctas_per_group;
  histogram_cta<Lane, page_work>(work, shared)
      .run(to.counts + group, to.books + 16 * static_cast<u64>(group), to.n_entries);
}

}  // namespace tersor::cuda
