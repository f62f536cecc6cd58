// Canonical order: puts the tails that the encoding kernel left in the workspace, in the order in which their
// chunks finished, into chunk order, and completes records, header and padding. The tails are a few percent
// of the values, so this launch is small.
//
// Grid: one CTA per kOrderChunks chunks of each frame. The CTA adds up the words of all blocks before its
// own, scans its own chunks (one a thread, in the first warps), then its warps copy.
#pragma once

#include "cuda/codec/encode_kernel.cuh"

namespace tersor::cuda {

struct order_shared {
  u64 first[kOrderChunks];  ///< where the tails of a chunk go
  u64 from[kOrderChunks];   ///< where they wait
  u32 words[kOrderChunks];
  u64 partial[kWarps];
  u64 before;
};

template <class Work>
class tail_order_cta {
 public:
  TERSOR_DEVICE tail_order_cta(const Work& work, order_shared& sh, u32 f, u32 block)
      : work_(work),
        sh_(sh),
        f_(f),
        block_(block),
        lane_(ptx::thread_index() & 31),
        warp_(ptx::thread_index() >> 5) {}

  TERSOR_DEVICE void run() {
    const u32 chunk = block_ * kOrderChunks + ptx::thread_index();
    const bool exists = ptx::thread_index() < kOrderChunks && chunk < work_.shape().n_chunks;
    sum_blocks_before();
    const u64 lengths = exists ? ptx::load(record(chunk) + 2) : 0;
    const u32 words = ptx::dot_bytes(static_cast<u32>(lengths), 0x01010101u,
                                     ptx::dot_bytes(static_cast<u32>(lengths >> 32), 0x01010101u, 0u));
    place_chunks(words);
    u64 hash = 0;
    if (exists) hash = finish_record(chunk, lengths);
    ptx::barrier();
    copy_tails();
    for (u32 step = 1; step < 32; step <<= 1) hash += ptx::shfl_xor(hash, step);
    if (lane_ == 0) ptx::atomic_add(&work_.totals(f_)->index, hash);
    ptx::barrier();
    if (warp_ != 0) return;
    const u32 blocks = n_blocks();
    if (finished_last(work_.totals(f_), 1, blocks == 0 ? 1 : blocks, lane_)) {
      for (u32 i = lane_; i < blocks; i += 32) ptx::store(work_.order_words(f_) + i, 0u);
      // The header says what the codebook must look like.
      const codec_detail::book_facts book = codec_detail::book_of(work_.header()[1]);
      end_encode(work_, f_, book.n_entries, book.symbol_bits, lane_);
    }
  }

 private:
  [[nodiscard]] TERSOR_DEVICE u32 n_blocks() const {
    return (work_.shape().n_chunks + kOrderChunks - 1) / kOrderChunks;
  }
  [[nodiscard]] TERSOR_DEVICE u64* record(u32 chunk) const {
    return reinterpret_cast<u64*>(work_.frame(f_) + kHeaderBytes) + 3 * static_cast<u64>(chunk);
  }

  TERSOR_DEVICE void sum_blocks_before() {
    u64 sum = 0;
    for (u32 i = ptx::thread_index(); i < block_; i += kCtaThreads)
      sum += ptx::load(work_.order_words(f_) + i);
    for (u32 step = 1; step < 32; step <<= 1) sum += ptx::shfl_xor(sum, step);
    if (lane_ == 0) sh_.partial[warp_] = sum;
    ptx::barrier();
    u64 before = 0;
    for (u32 w = 0; w < kWarps; ++w) before += sh_.partial[w];
    ptx::barrier();
    if (ptx::thread_index() == 0) sh_.before = before;
  }

  /// Exclusive scan of the chunks' words over the CTA.
  TERSOR_DEVICE void place_chunks(u32 words) {
    const u32 scan = inclusive_scan(words);
    if (lane_ == 31) sh_.partial[warp_] = scan;
    ptx::barrier();
    u64 first = sh_.before + scan - words;
    for (u32 w = 0; w < warp_; ++w) first += sh_.partial[w];
    if (ptx::thread_index() < kOrderChunks) {
      sh_.first[ptx::thread_index()] = first;
      sh_.words[ptx::thread_index()] = words;
    }
  }

  /// Writes the chunk's place into its record; returns the record's hash. The old place is for the copy.
  TERSOR_DEVICE u64 finish_record(u32 chunk, u64 lengths) {
    u64* r = record(chunk);
    const u64 digest = ptx::load(r), old = ptx::load(r + 1), flags = old & ~kPlaceMask;
    const u64 place = sh_.first[ptx::thread_index()] | flags;
    ptx::store(r + 1, place);
    sh_.from[ptx::thread_index()] = old & kPlaceMask;
    return record_hash(chunk, digest, place, lengths);
  }

  /// Each warp copies the tails of its chunks, 256 words at a time.
  TERSOR_DEVICE void copy_tails() {
    constexpr u32 kMine = kOrderChunks / kWarps, kBatch = 8;
    const frame_shape& s = work_.shape();
    u32* tails = reinterpret_cast<u32*>(work_.frame(f_) + s.tails);
    const u64 room = (s.n_bytes - s.tails) / 4;
#pragma unroll 2
    for (u32 i = 0; i < kMine; ++i) {
      const u32 words = sh_.words[kMine * warp_ + i];
      const u64 to = sh_.first[kMine * warp_ + i];
      if (words == 0 || to + words > room) continue;
      const u32* from = work_.waiting(f_) + sh_.from[kMine * warp_ + i];
      for (u32 at = lane_; at < words; at += 32 * kBatch) {
        u32 batch[kBatch];
#pragma unroll
        for (u32 k = 0; k < kBatch; ++k) batch[k] = at + 32 * k < words ? ptx::load(from + at + 32 * k) : 0;
#pragma unroll
        for (u32 k = 0; k < kBatch; ++k) {
          if (at + 32 * k < words) ptx::store(tails + to + at + 32 * k, batch[k]);
        }
      }
    }
  }

  static constexpr u64 kPlaceMask = (u64{1} << 48) - 1;
  const Work& work_;
  order_shared& sh_;
  u32 f_, block_, lane_, warp_;
};

/// CTA `c` of a tensor launch: `first_cta` counts blocks here.
TERSOR_DEVICE void order_cta(const tensor_launch& launch, order_shared& shared) {
  const auto work = work_of(launch, ptx::cta_index());
  tail_order_cta<tensor_work<tensor_launch>>(work, shared, 0, work.first()).run();
}
/// CTAs of a page launch: `ctas_per_group` = frames of a group x blocks of a frame.
TERSOR_DEVICE void order_cta(const page_launch& launch, order_shared& shared) {
  const page_work work(launch, ptx::cta_index());
  tail_order_cta<page_work>(work, shared, work.first() / launch.order_blocks,
                            work.first() % launch.order_blocks)
      .run();
}

}  // namespace tersor::cuda
