// Compares values in memory with the digests of the frame that they were decoded from. Header, index and
// padding are judged as in decoding; planes and tails are not read.
//
// Grid: as decoding. A CTA takes chunks first, first + step, ... of its group; warp w sums tile w of the
// chunk, while its next tile is copied to shared memory; the warps take turns to judge a chunk.
//
// Shared: values[8 warps][2] | sums[2 turns][8 warps] | digest keys | findings
#pragma once

#include "cuda/codec/decode_kernel.cuh"

namespace tersor::cuda {

template <u32 kValueBytes>
struct recheck_shared {
  alignas(16) u8 values[kWarps][kStages][1024 * kValueBytes];
  tile_sums sums[2][kWarps];
  digest_keys<kValueBytes> keys;
  frame_findings findings[kWarps];
};

template <class Lane, class Work>
class value_checker {
 public:
  using shared = recheck_shared<Lane::kValueBytes>;

  TERSOR_DEVICE value_checker(const Work& work, shared& sh, u32 raw_words)
      : work_(work),
        sh_(sh),
        lane_(ptx::thread_index() & 31),
        warp_(ptx::thread_index() >> 5),
        raw_words_(raw_words) {
    sh.keys.fill(ptx::thread_index());
    const u32* frame = reinterpret_cast<const u32*>(work.frame(0));
    if (work.shape().n_chunks != 0) {
      const u32 low = ptx::load(frame + 2 * kTailWordsWord), high = ptx::load(frame + 2 * kTailWordsWord + 1);
      tail_words_ = static_cast<u64>(high) << 32 | low;
    }
    ptx::barrier();
  }

  TERSOR_DEVICE void run() {
    const u32 n = work_.n_chunks(), step = work_.step();
    u32 turn = 0;
    fetch(work_.first(), turn);
    for (u32 chunk = work_.first(); chunk < n; chunk += step, ++turn) {
      fetch(chunk + step, turn + 1);
      // Asked for before it is needed, so that the trip to memory is hidden.
      const bool judge = turn % kWarps == warp_;
      const u32 record = judge ? record_of(chunk) : 0;
      const tile_sums sums = sums_of(kWarps * chunk + warp_, turn);
      if (lane_ == 0) sh_.sums[turn & 1][warp_] = sums;
      // Whoever writes this slot again has passed the barrier of the next turn, which comes after judging.
      ptx::barrier();
      if (judge) judge_chunk(chunk, turn, record);
    }
    end_of_cta(turn);
  }

 private:
  TERSOR_DEVICE void fetch(u32 chunk, u32 turn) {
    const u32 tile = kWarps * chunk + warp_;
    if (chunk < work_.n_chunks() && tile < work_.shape().n_tiles)
      work_.template tiles<Lane>(0).fetch(sh_.values[warp_][turn % kStages], tile, lane_, 0);
    ptx::end_copies();
  }

  TERSOR_DEVICE tile_sums sums_of(u32 tile, u32 turn) {
    tile_sums sums;
    ptx::wait_copies<1>();
    ptx::sync_warp();
    if (tile < work_.shape().n_tiles) {
      const staged_tile<Lane> source{sh_.values[warp_][turn % kStages], tile_values(work_.shape(), tile), 0};
      typename Lane::row x[4];
#pragma unroll
      for (u32 i = 0; i < 4; ++i) x[i] = source.raw_row(i, lane_);
      sums = digest_of<Lane::kValueBytes>(sh_.keys, x, lane_);
    }
    ptx::sync_warp();
    return sums;
  }

  /// One word a lane, as tile_place.cuh draws it.
  TERSOR_DEVICE u32 record_of(u32 chunk) const {
    const u32* frame = reinterpret_cast<const u32*>(work_.frame(0));
    return lane_ < 6 ? ptx::load(frame + kHeaderBytes / 4 + 6 * static_cast<u64>(chunk) + lane_) : 0;
  }

  TERSOR_DEVICE void judge_chunk(u32 chunk, u32 turn, u32 record) {
    const auto word = [&](u32 at) {
      return static_cast<u64>(ptx::shfl(record, at + 1)) << 32 | ptx::shfl(record, at);
    };
    const frame_shape& s = work_.shape();
    const u64 want = word(0), now = chunk_digest(sh_.sums[turn & 1], kWarps * chunk, s.n_tiles, lane_);
    const u32 left = s.n_tiles - kWarps * chunk;
    const record_facts facts =
        judge_record(record, lane_, left < kWarps ? left : kWarps, tail_words_, raw_words_);
    found_.index += record_hash(chunk, want, word(2), word(4));
    found_.words += facts.words;
    const u32 bad_record = facts.good ? 0 : ~chunk;
    const u32 bad_chunk = now == want ? 0 : ~(chunk << 3 | static_cast<u32>(chunk_verdict::digest_differs));
    if (bad_record > found_.bad_record) found_.bad_record = bad_record;
    if (bad_chunk > found_.bad_chunk) found_.bad_chunk = bad_chunk;
  }

  TERSOR_DEVICE void end_of_cta(u32 turns) {
    frame_ends ends;
    if (warp_ == 0) ends = read_ends(work_, 0, lane_);
    if (lane_ == 0) sh_.findings[warp_] = found_;
    ptx::barrier();
    if (warp_ != 0) return;
    frame_findings all;
    for (u32 w = 0; w < kWarps; ++w) merge(all, sh_.findings[w]);
    if (lane_ == 0) publish(work_.totals(0), all);
    if (work_.shape().n_chunks == 0 || finished_last(work_.totals(0), turns, work_.shape().n_chunks, lane_))
      end_decode(work_, 0, ends, lane_);
  }

  const Work& work_;
  shared& sh_;
  u32 lane_, warp_, raw_words_;
  u64 tail_words_ = 0;
  frame_findings found_;
};

template <class Lane, class Launch>
TERSOR_DEVICE void recheck_cta(const Launch& launch, u32 raw_words,
                               recheck_shared<Lane::kValueBytes>& shared) {
  auto work = work_of(launch, ptx::cta_index());
  value_checker<Lane, decltype(work)>(work, shared, raw_words).run();
}

}  // namespace tersor::cuda
