// The decoding kernel of all codecs and dtypes.
//
// Grid: CTAs of 8 warps, shared out among the groups of the launch. A CTA takes chunks first, first + step,
// ... of its group; warp w decodes tile w of the chunk, while the planes and the first 32 tail words of its
// next tiles are copied to shared memory; records are loaded one chunk before that.
//
// A lane owns 8 consecutive values of each sub-block s:
//   rest   8 bytes at 256 s + 8 l of the tile         code   one word of 8 (rank) or 16 (top16) bytes at its
//   multiple of l     out    8 values at 256 s + 8 l
// Shared: stage[8 warps][2]: planes and tail | the codec's tables | digest keys | verdicts of the tiles [16
// turns][8]
#pragma once

#include "cuda/codec/encode_kernel.cuh"
#include "cuda/codec/rank_decode.cuh"

namespace tersor::cuda {

/// Verdicts of one chunk's tiles.
struct verdict_slot {
  tile_sums sums[kWarps];
  u32 verdict[kWarps];  ///< chunk_verdict; `good` until the digest says otherwise
  u64 arrived;          ///< phase n ends when the eight tiles of the slot's n-th chunk are decoded
};

// In turn r the warp r % 8 first waits for the chunk of turn r - kLag, which the others left long ago, and
// checks it. So no warp is more than kLag + 7 turns ahead of the slowest, and a slot that is kSlots turns old
// is free.
inline constexpr u32 kLag = 4, kSlots = 16;

/// What a warp knows of a frame after checking chunks of it.
struct frame_findings {
  u64 index = 0, words = 0;
  u32 bad_record = 0, bad_chunk = 0;  ///< complements, as in frame_totals
};

TERSOR_DEVICE void merge(frame_findings& a, const frame_findings& b) {
  a.index += b.index;
  a.words += b.words;
  a.bad_record = a.bad_record > b.bad_record ? a.bad_record : b.bad_record;
  a.bad_chunk = a.bad_chunk > b.bad_chunk ? a.bad_chunk : b.bad_chunk;
}
TERSOR_DEVICE void publish(frame_totals* totals, const frame_findings& f) {
  ptx::atomic_add(&totals->index, f.index);
  ptx::atomic_add(&totals->words, f.words);
  if (f.bad_record != 0) ptx::atomic_max(&totals->bad_record, f.bad_record);
  if (f.bad_chunk != 0) ptx::atomic_max(&totals->bad_chunk, f.bad_chunk);
}

/// A tile of a warp, and what fetching it found out. Aligned so that a copy of 128 bytes fills one line of
/// shared memory: one that straddles two lines reads sectors twice, which costs a peer's or the host's link
/// dearly.
template <class Codec>
struct alignas(128) tile_stage {
  alignas(16) u8 rest[Codec::kRestBytes];
  alignas(16) u8 code[128 * Codec::kCodeWidth];
  u32 tail[Codec::kStageWords];
  u32 meta[16];  ///< of launches with several frames: tile_place.cuh
  u32 info;      ///< tile_place::info
  u32 page_id;   ///< where the values go, if they go to a page
};

template <class Codec, u32 kValueBytes>
struct decode_shared {
  tile_stage<Codec> stage[kWarps][kStages];
  typename Codec::tables tables;
  length_mask before[kWarps];
  digest_keys<kValueBytes> keys;
  verdict_slot slots[kSlots];
  frame_findings findings[kWarps];
};

template <class Codec, class Lane, class Work>
class chunk_decoder {
 public:
  using shared = decode_shared<Codec, Lane::kValueBytes>;
  using row = typename Lane::row;

  TERSOR_DEVICE chunk_decoder(const Work& work, shared& sh)
      : work_(work), sh_(sh), lane_(ptx::thread_index() & 31), warp_(ptx::thread_index() >> 5) {
    const u32 thread = ptx::thread_index();
    next_meta_ = meta_of(work.first());
    const u32 header = one_frame() ? (Work::kOneFrame ? header_of(0) : next_meta_) : 0;
    if (thread < kSlots) ptx::arrival_init(&sh.slots[thread].arrived, kWarps);
    ptx::barrier();
    sh.tables.fill(thread);
    sh.keys.fill(thread);
    if (thread < kWarps) sh.before[thread] = lengths_before(thread);
    if (one_frame()) {
      entries_ = entries_in(header);
      tail_words_ = tail_words_in(header);
    }
    ptx::barrier();
  }

  TERSOR_DEVICE void run() {
    const u32 n = work_.n_chunks(), step = work_.step();
    constexpr u32 kAhead = kStages - 1;
    u32 v = work_.first(), turn = 0;
    for (u32 i = 0; i < kAhead; ++i) {
      const u32 meta = next_meta_;
      next_meta_ = meta_of(v + (i + 1) * step);
      fetch(v + i * step, meta, i);
    }
    for (; v < n; v += step, ++turn) {
      const u32 meta = next_meta_;
      next_meta_ = meta_of(v + (kAhead + 1) * step);
      fetch(v + kAhead * step, meta, turn + kAhead);
      decode_tile(v, turn);
      if (turn % kWarps == warp_ && turn >= kLag) check_chunk(turn - kLag);
      ptx::sync_warp();
    }
    if (warp_ < kLag && turn + warp_ >= kLag) check_chunk(turn + warp_ - kLag);
    if (one_frame()) end_of_cta(turn);
  }

 private:
  /// One word a lane of what tile_place.cuh draws; zero past the end.
  TERSOR_DEVICE u32 meta_of(u32 v) const {
    if (v >= work_.n_chunks()) return 0;
    const chunk_place at = work_.locate(v);
    const u32* frame = reinterpret_cast<const u32*>(work_.frame(at.frame));
    const u32* from = nullptr;
    if (lane_ < 6) from = frame + kHeaderBytes / 4 + 6 * static_cast<u64>(at.chunk) + lane_;
    if constexpr (Work::kOneFrame) return from == nullptr ? 0 : ptx::load(from);
    if (lane_ >= 6 && lane_ < 8) from = frame + 2 * kTailWordsWord + (lane_ - 6);
    if (lane_ >= 8 && lane_ < 12) from = frame + 2 * kCodebookWord + (lane_ - 8);
    if (const result_slot* where = work_.where(at.frame); where != nullptr) {
      if (lane_ == 12) from = reinterpret_cast<const u32*>(&where->code);
      if (lane_ == 13) from = &where->overflow;
    }
    return from == nullptr ? 0 : ptx::load(from);
  }

  [[nodiscard]] TERSOR_DEVICE bool one_frame() const { return Work::kOneFrame || work_.n_frames() == 1; }

  /// The header's words of meta_of alone.
  TERSOR_DEVICE u32 header_of(u32 f) const {
    const u32* frame = reinterpret_cast<const u32*>(work_.frame(f));
    if (lane_ < 6 || lane_ >= 12 || work_.n_chunks() == 0) return 0;
    return ptx::load(frame +
                     (lane_ < 8 ? 2 * kTailWordsWord + (lane_ - 6) : 2 * kCodebookWord + (lane_ - 8)));
  }
  [[nodiscard]] TERSOR_DEVICE u64 tail_words_in(u32 meta) const {
    return static_cast<u64>(ptx::shfl(meta, 7)) << 32 | ptx::shfl(meta, 6);
  }
  [[nodiscard]] TERSOR_DEVICE u64 declared_tail_words(u32 meta) const {
    return one_frame() ? tail_words_ : tail_words_in(meta);
  }

  static TERSOR_DEVICE typename Codec::entries entries_in(u32 meta) {
    const uint4 book{ptx::shfl(meta, 8), ptx::shfl(meta, 9), ptx::shfl(meta, 10), ptx::shfl(meta, 11)};
    return Codec::entries_of(book);
  }

  /// Pages that encoding put elsewhere, or could not keep, are not for this kernel.
  TERSOR_DEVICE bool is_elsewhere(u32 f, u32 meta) const {
    return Work::kPages && work_.where(f) != nullptr &&
           (ptx::shfl(meta, 12) != 0 || ptx::shfl(meta, 13) != 0xffffffff);
  }

  [[nodiscard]] TERSOR_DEVICE u64 tail_room(u32 meta) const {
    const u64 declared = declared_tail_words(meta);
    const u64 room = (work_.shape().n_bytes - work_.shape().tails) / 4;
    return declared < room ? declared : room;
  }

  /// Starts the copies of the warp's tile of chunk v.
  TERSOR_DEVICE void fetch(u32 v, u32 meta, u32 turn) {
    const tile_place place = place_of(meta, warp_, sh_.before[warp_], tail_room(meta), Codec::kRawWords);
    tile_stage<Codec>& stage = sh_.stage[warp_][turn % kStages];
    if (lane_ == 0) stage.info = place.info;
    if (!one_frame() && lane_ < 16) stage.meta[lane_] = meta;
    if (v < work_.n_chunks()) {
      const chunk_place at = work_.locate(v);
      const u32 tile = kWarps * at.chunk + warp_;
      if (tile < work_.shape().n_tiles) {
        u8* frame = work_.frame(at.frame);
        const frame_planes planes = planes_of(frame, work_.shape());
        Lane::copy_rest(stage.rest, planes, tile, lane_);
        copy_tile<128 * Codec::kCodeWidth>(stage.code, planes.code, tile, lane_);
        const u32* tails = reinterpret_cast<const u32*>(frame + work_.shape().tails);
        if (lane_ < place.words()) ptx::copy_4(stage.tail + lane_, tails + place.first + lane_);
        work_.template tiles<Lane>(at.frame).copy_id(&stage.page_id, tile, lane_);
      }
    }
    ptx::end_copies();
  }

  /// Fetches the words of a tail past the first 32.
  TERSOR_DEVICE void fetch_long_tail(u32 f, u32 v, u32* tail) {
    const u32 meta = meta_of(v);
    const tile_place place = place_of(meta, warp_, sh_.before[warp_], tail_room(meta), Codec::kRawWords);
    const u32* tails = reinterpret_cast<const u32*>(work_.frame(f) + work_.shape().tails) + place.first;
#pragma unroll 1
    for (u32 i = lane_ + 32; i < place.words(); i += 32) tail[i] = ptx::load(tails + i);
    ptx::sync_warp();
  }

  TERSOR_DEVICE void decode_tile(u32 v, u32 turn) {
    verdict_slot& slot = sh_.slots[turn % kSlots];
    const chunk_place at = work_.locate(v);
    const u32 tile = kWarps * at.chunk + warp_;
    chunk_verdict verdict = chunk_verdict::good;
    tile_sums sums;
    tile_stage<Codec>& stage = sh_.stage[warp_][turn % kStages];
    ptx::wait_copies<kStages - 1>();
    ptx::sync_warp();
    const u32 meta = one_frame() ? 0 : stage.meta[lane_ & 15];
    if (tile < work_.shape().n_tiles && !is_elsewhere(at.frame, meta)) {
      if (!one_frame()) entries_ = entries_in(meta);
      const tile_place place{0, stage.info};
      if (place.words() > 32) fetch_long_tail(at.frame, v, stage.tail);
      row x[4];
      const lane_plane<Codec::kCodeWidth> code(
          reinterpret_cast<const typename word_of<Codec::kCodeWidth>::type*>(stage.code)[lane_]);
      typename Codec::rest rest;
      rest.load(stage.rest, lane_);
      bool good =
          Codec::decode(sh_.tables, entries_, stage.tail, place, code, rest, x, lane_) && !place.outside();
      const u32 n = tile_values(work_.shape(), tile);
      if (n != kTile) good = trim(n, code, place.raw(), x) && good;
      sums = digest_of<Lane::kValueBytes>(sh_.keys, x, lane_);
      if (!good) verdict = chunk_verdict::malformed;
      if (!work_.template tiles<Lane>(at.frame).store(tile, lane_, x, stage.page_id))
        verdict = chunk_verdict::bad_page;
      if (Work::kPages && !ptx::all(verdict != chunk_verdict::bad_page)) verdict = chunk_verdict::bad_page;
    }
    if (lane_ == 0) {
      slot.sums[warp_] = sums;
      slot.verdict[warp_] = static_cast<u32>(verdict);
      ptx::arrive(&slot.arrived);
    }
  }

  /// Zeroes the values that do not exist; false if the frame holds anything for them.
  TERSOR_DEVICE bool trim(u32 n, const lane_plane<Codec::kCodeWidth>& code, bool raw, row (&x)[4]) const {
    const u32 pad = raw ? 0 : Lane::repeat(pad_value());
    bool clean = true;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) {
      const u32 live = row_values(n, s, lane_);
      const u32 codes = live == 8 ? 0 : code.eight(s) >> (Codec::kCodeWidth * live);
      const row kept = Lane::keep(x[s], live, pad);
      clean = clean && codes == 0 && same(kept, x[s]);
      x[s] = Lane::keep(x[s], live, 0);
    }
    return ptx::all(clean);
  }
  static TERSOR_DEVICE bool same(const uint4& a, const uint4& b) {
    return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w;
  }
  static TERSOR_DEVICE bool same(const uint2& a, const uint2& b) {
    return a.x == b.x && a.y == b.y;
  }

  /// The value of code 0 and rest 0: what joining the first entry with nothing gives.
  TERSOR_DEVICE u32 pad_value() const {
    typename Lane::rest nothing{};
    row x{};
    Lane::join(Codec::first_entry(entries_) & 0xff, nothing, 0, 0, x);
    return Lane::word(x, 0) & ((1u << 8 * Lane::kValueBytes) - 1);
  }

  /// Compares the digest of the chunk of turn `turn` and notes what there is to note.
  TERSOR_DEVICE void check_chunk(u32 turn) {
    verdict_slot& slot = sh_.slots[turn % kSlots];
    const u32 v = work_.first() + turn * work_.step();
    const chunk_place at = work_.locate(v);
    const frame_shape& s = work_.shape();
    const u32 meta = meta_of(v);
    wait_for(&slot.arrived, turn / kSlots);
    if (is_elsewhere(at.frame, meta)) return;
    const u64 now = chunk_digest(slot.sums, kWarps * at.chunk, s.n_tiles, lane_);
    const u64 want = static_cast<u64>(ptx::shfl(meta, 1)) << 32 | ptx::shfl(meta, 0);
    const u32 left = s.n_tiles - kWarps * at.chunk;
    const record_facts record =
        judge_record(meta, lane_, left < kWarps ? left : kWarps, declared_tail_words(meta), Codec::kRawWords);
    const u32 verdict = lane_ < kWarps ? slot.verdict[lane_] : 7;
    const u32 bad = ptx::ballot(verdict != 7),
              pages = ptx::ballot(verdict == static_cast<u32>(chunk_verdict::bad_page));
    const chunk_verdict chunk = pages != 0    ? chunk_verdict::bad_page
                                : bad != 0    ? chunk_verdict::malformed
                                : now != want ? chunk_verdict::digest_differs
                                              : chunk_verdict::good;
    const u64 place = static_cast<u64>(ptx::shfl(meta, 3)) << 32 | ptx::shfl(meta, 2);
    const u64 lengths = static_cast<u64>(ptx::shfl(meta, 5)) << 32 | ptx::shfl(meta, 4);
    note(at, record, chunk, record_hash(at.chunk, want, place, lengths));
  }

  TERSOR_DEVICE void note(chunk_place at, const record_facts& record, chunk_verdict verdict, u64 hash) {
    frame_findings one;
    one.index = hash;
    one.words = record.words;
    if (!record.good) one.bad_record = ~at.chunk;
    if (verdict != chunk_verdict::good) one.bad_chunk = ~(at.chunk << 3 | static_cast<u32>(verdict));
    if (u8* codes = work_.chunk_codes(at.frame); codes != nullptr && lane_ == 0) {
      const chunk_verdict seen = record.good ? verdict : chunk_verdict::malformed;
      ptx::store(codes + at.chunk,
                 static_cast<u8>(seen == chunk_verdict::good             ? kOk
                                 : seen == chunk_verdict::malformed      ? kMalformed
                                 : seen == chunk_verdict::digest_differs ? kDigestMismatch
                                                                         : kInvalidArgument));
    }
    if (one_frame()) {
      merge(found_, one);
      return;
    }
    if (lane_ == 0) publish(work_.totals(at.frame), one);
    if (finished_last(work_.totals(at.frame), 1, work_.shape().n_chunks, lane_))
      end_decode(work_, at.frame, read_ends(work_, at.frame, lane_), lane_);
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
  u32 lane_, warp_;
  u32 next_meta_ = 0;
  typename Codec::entries entries_{};
  u64 tail_words_ = 0;  ///< of the only frame
  frame_findings found_;
};

template <class Codec, class Lane, class Launch>
TERSOR_DEVICE void decode_cta(const Launch& launch, decode_shared<Codec, Lane::kValueBytes>& shared) {
  auto work = work_of(launch, ptx::cta_index());
  chunk_decoder<Codec, Lane, decltype(work)>(work, shared).run();
}

}  // namespace tersor::cuda
