// The encoding kernel of all codecs and dtypes: one pass over the values, one launch.
//
// Grid: CTAs of 8 warps, shared out among the groups of the launch. A CTA takes chunks first, first + step,
// ... of its group; warp w encodes tile w of the chunk, while its next tile is copied to shared memory; a
// lane owns 8 consecutive values of each sub-block. Each warp builds its tail in shared memory; one warp a
// chunk, in turns, places it with an atomicAdd and writes the record and the eight tails. There is no barrier
// for all: arrival counters (mbarriers) in shared memory say which tiles are built and which slots are free.
//
// Shared: values[8 warps][2] | tails[4 turns][8 warps] | slots[4]: sums, lengths and flags of the tiles | the
// codec's table | digest keys
#pragma once

#include "cuda/codec/frame_end.cuh"
#include "cuda/codec/rank_encode.cuh"

namespace tersor::cuda {

/// What the warps of a CTA tell each other about one chunk. A slot serves turn t, t + kTurns, ...
struct chunk_slot {
  tile_sums sums[kWarps];
  u32 info[kWarps];  ///< words | escapes << 8 | raw << 9 | bad page << 10
  u64 arrived;       ///< phase n ends when the eight tiles of the slot's n-th chunk are built
  u64 finished;      ///< phase n ends when that chunk is written
};

// In turn t the warp t % 8 finishes the chunk of turn t - kBehind: it asks for the place before it encodes
// its own tile, and writes record and tails after it, so that the atomic's time is hidden. A warp that is
// kTurns ahead waits for the slot. kBehind < kTurns keeps this free of circles.
inline constexpr u32 kBehind = 2, kTurns = 4;

/// Tiles of a warp in shared memory: the one it works on and the next one.
inline constexpr u32 kStages = 2;

template <class Codec, u32 kValueBytes>
struct encode_shared {
  alignas(16) u8 values[kWarps][kStages][1024 * kValueBytes];
  typename Codec::table_entry table[256];
  u32 stage[kTurns][kWarps][Codec::kStageWords];
  chunk_slot slots[kTurns];
  digest_keys<kValueBytes> keys;
};

/// Waits for the end of phase `phase`, of which the caller knows that the phase after it has not ended.
TERSOR_DEVICE void wait_for(u64* counter, u32 phase) {
  while (!ptx::has_ended(counter, phase & 1)) {
  }
}

/// Place of a symbol in a codebook of `n` entries; 16 if it is not there.
TERSOR_DEVICE u32 place_in(uint4 book, u32 symbol, u32 n) {
  const u32 words[4] = {book.x, book.y, book.z, book.w};
  u32 place = 16;
#pragma unroll
  for (u32 i = 0; i < 16; ++i) {
    if (i < n && (words[i / 4] >> (8 * (i % 4)) & 0xff) == symbol && place == 16) place = i;
  }
  return place;
}

/// A group's codebook: from device memory, or from the header that the host prepared.
template <class Work>
TERSOR_DEVICE uint4 codebook_of(const Work& work) {
  if (work.codebook() != nullptr) return ptx::load(reinterpret_cast<const uint4*>(work.codebook()));
  const u64 a = work.header()[kCodebookWord], b = work.header()[kCodebookWord + 1];
  return {static_cast<u32>(a), static_cast<u32>(a >> 32), static_cast<u32>(b), static_cast<u32>(b >> 32)};
}

template <class Codec, class Lane, class Work>
class chunk_encoder {
 public:
  using shared = encode_shared<Codec, Lane::kValueBytes>;
  using row = typename Lane::row;

  TERSOR_DEVICE chunk_encoder(const Work& work, shared& sh)
      : work_(work), sh_(sh), lane_(ptx::thread_index() & 31), warp_(ptx::thread_index() >> 5) {
    next_id_ = id_of(work.first());
    next_good_ = fetch(work.first(), 0);
    const uint4 book = codebook_of(work);
    const u32 thread = ptx::thread_index();
    if (thread < kTurns) {
      ptx::arrival_init(&sh.slots[thread].arrived, kCtaThreads);
      ptx::arrival_init(&sh.slots[thread].finished, 32);
    }
    ptx::barrier();
    pad_ = bare_value<Lane>(book.x & ((1u << Lane::kSymbolBits) - 1));
    sh.table[thread] = Codec::entry_of_place(place_in(book, thread, Codec::kEntries));
    sh.keys.fill(thread);
    ptx::barrier();
  }

  TERSOR_DEVICE void run() {
    const u32 n = work_.n_chunks(), step = work_.step();
    u32 turn = 0;
    for (u32 v = work_.first(); v < n; v += step, ++turn) {
      const bool good = next_good_;
      next_good_ = fetch(v + step, turn + 1);
      const bool finisher = turn % kWarps == warp_ && turn >= kBehind;
      const u32 old = turn - kBehind;
      u64 first = 0;
      if (finisher) first = ask_place(old, v - kBehind * step);
      chunk_slot& slot = sh_.slots[turn % kTurns];
      if (turn >= kTurns) wait_for(&slot.finished, turn / kTurns - 1);
      encode_tile(v, turn, good, slot);
      if (finisher) finish_chunk(old, v - kBehind * step, first);
    }
    for (u32 old = turn < kBehind ? 0 : turn - kBehind; old < turn; ++old) {
      if ((old + kBehind) % kWarps != warp_) continue;
      const u32 v = work_.first() + old * step;
      finish_chunk(old, v, ask_place(old, v));
    }
    if (Work::kOneFrame || work_.n_frames() == 1) end_of_cta(turn);
  }

 private:
  /// The id of the page of the warp's tile of chunk v.
  TERSOR_DEVICE u32 id_of(u32 v) const {
    if (!Work::kPages || v >= work_.n_chunks()) return 0;
    const chunk_place at = work_.locate(v);
    const u32 tile = kWarps * at.chunk + warp_;
    return tile < work_.shape().n_tiles ? work_.template tiles<Lane>(at.frame).id_of(tile) : 0;
  }

  /// Starts the copy of the warp's tile of chunk v.
  TERSOR_DEVICE bool fetch(u32 v, u32 turn) {
    bool good = true;
    if (v < work_.n_chunks()) {
      const chunk_place at = work_.locate(v);
      const u32 tile = kWarps * at.chunk + warp_;
      if (tile < work_.shape().n_tiles)
        good = work_.template tiles<Lane>(at.frame).fetch(sh_.values[warp_][turn % kStages], tile, lane_,
                                                          next_id_);
    }
    ptx::end_copies();
    next_id_ = id_of(v + work_.step());
    return good;
  }

  TERSOR_DEVICE void encode_tile(u32 v, u32 turn, bool good, chunk_slot& slot) {
    const chunk_place at = work_.locate(v);
    const frame_shape& s = work_.shape();
    const u32 tile = kWarps * at.chunk + warp_;
    u32 info = 0;
    tile_sums sums;
    ptx::wait_copies<1>();
    ptx::sync_warp();
    if (tile < s.n_tiles) {
      const staged_tile<Lane> source{sh_.values[warp_][turn % kStages], tile_values(s, tile), pad_};
      row x[4];
#pragma unroll
      for (u32 i = 0; i < 4; ++i) x[i] = source.raw_row(i, lane_);
      sums = digest_of<Lane::kValueBytes>(sh_.keys, x, lane_);
      info = build_tile(at.frame, tile, source, x, sh_.stage[turn % kTurns][warp_]);
    }
    const bool bad_page = Work::kPages && !ptx::all(good);
    if (lane_ == 0) {
      slot.info[warp_] = info | (bad_page ? 1u << 10 : 0u);
      slot.sums[warp_] = sums;
    }
    ptx::arrive(&slot.arrived);
    ptx::sync_warp();
  }

  /// Writes the planes of a tile and its tail to `tail`. Returns words | escapes << 8 | raw << 9.
  TERSOR_DEVICE u32 build_tile(u32 f, u32 tile, const staged_tile<Lane>& source, row (&x)[4], u32* tail) {
    const frame_planes planes = planes_of(work_.frame(f), work_.shape());
    const u32 n = source.n_values;
    lane_plane<Codec::kCodeWidth> code;
    typename Lane::rest_writer rest;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) rest.put(planes, tile, s, lane_, x[s]);
    rest.finish(planes, tile, lane_);
    if (n != kTile) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) x[s] = source.row(s, lane_);
    }
    const built_tail built = Codec::encode(tail, sh_.table, x, source, code, lane_);
    if (built.raw) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) x[s] = source.raw_row(s, lane_);
      ptx::sync_warp();
      code = encode_raw<Lane, Codec::kCodeWidth>(tail, x, lane_);
    }
    store_plane(planes.code, tile, lane_, code);
    return built.words | (built.escapes ? 1u << 8 : 0u) | (built.raw ? 1u << 9 : 0u);
  }

  /// Asks for the place of the tails of turn `old`; the answer is in lane 0.
  TERSOR_DEVICE u64 ask_place(u32 old, u32 v) {
    chunk_slot& slot = sh_.slots[old % kTurns];
    wait_for(&slot.arrived, old / kTurns);
    const u32 info = lane_ < kWarps ? slot.info[lane_] : 0;
    const u32 total = ptx::reduce_add(info & 0xff);
    const bool bad_page = Work::kPages && ptx::any((info >> 10 & 1) != 0);
    if (lane_ != 0) return 0;
    const chunk_place at = work_.locate(v);
    frame_totals* totals = work_.totals(at.frame);
    if (bad_page) ptx::atomic_max(&totals->bad_page, 1u);
    if (work_.waiting(0) != nullptr)
      ptx::atomic_add(work_.order_words(at.frame) + at.chunk / kOrderChunks, total);
    return ptx::atomic_add(&totals->words, total);
  }

  /// Writes a chunk's record and tails and frees its slot.
  TERSOR_DEVICE void finish_chunk(u32 old, u32 v, u64 first) {
    chunk_slot& slot = sh_.slots[old % kTurns];
    const chunk_place at = work_.locate(v);
    const frame_shape& s = work_.shape();
    first = ptx::shfl(first, 0);
    const u64 digest = chunk_digest(slot.sums, kWarps * at.chunk, s.n_tiles, lane_);
    write_record(at, slot, digest, first);
    u32* waiting = work_.waiting(at.frame);
    u32* to =
        (waiting != nullptr ? waiting : reinterpret_cast<u32*>(work_.frame(at.frame) + s.tails)) + first;
    const u64 room = waiting != nullptr ? ~u64{0} : (s.n_bytes - s.tails) / 4;
    const u32 total = ptx::reduce_add(lane_ < kWarps ? slot.info[lane_] & 0xff : 0);
    if (first + total <= room) {
#pragma unroll 1
      for (u32 t = 0; t < kWarps; ++t) {
        const u32 words = slot.info[t] & 0xff;
        for (u32 i = lane_; i < words; i += 32) ptx::store(to + i, sh_.stage[old % kTurns][t][i]);
        to += words;
      }
    }
    ptx::arrive(&slot.finished);
    if (!Work::kOneFrame && work_.n_frames() != 1 && waiting == nullptr &&
        finished_last(work_.totals(at.frame), 1, s.n_chunks, lane_)) {
      end_encode(work_, at.frame, Codec::kEntries, Lane::kSymbolBits, lane_);
    }
  }

  /// Lane i < 3 writes word i of the record. Its hash goes to the index digest.
  TERSOR_DEVICE void write_record(chunk_place at, const chunk_slot& slot, u64 digest, u64 first) {
    const u32 info = lane_ < kWarps ? slot.info[lane_] : 0;
    const u32 escapes = ptx::ballot((info >> 8 & 1) != 0), raw = ptx::ballot((info >> 9 & 1) != 0);
    const u32 length = (info & 0xff) << (8 * (lane_ & 3));
    const u32 lens0 = ptx::reduce_or(lane_ < 4 ? length : 0), lens1 = ptx::reduce_or(lane_ < 4 ? 0 : length);
    const u64 place = first | static_cast<u64>(escapes) << 48 | static_cast<u64>(raw) << 56;
    const u64 lengths = static_cast<u64>(lens1) << 32 | lens0;
    u64* record =
        reinterpret_cast<u64*>(work_.frame(at.frame) + kHeaderBytes) + 3 * static_cast<u64>(at.chunk);
    if (lane_ < 3) ptx::store(record + lane_, lane_ == 0 ? digest : lane_ == 1 ? place : lengths);
    if (lane_ == 0 && work_.waiting(0) == nullptr)
      ptx::atomic_add(&work_.totals(at.frame)->index, record_hash(at.chunk, digest, place, lengths));
  }

  TERSOR_DEVICE void end_of_cta(u32 turns) {
    ptx::barrier();
    if (warp_ != 0 || work_.waiting(0) != nullptr) return;
    if (work_.shape().n_chunks == 0 || finished_last(work_.totals(0), turns, work_.shape().n_chunks, lane_))
      end_encode(work_, 0, Codec::kEntries, Lane::kSymbolBits, lane_);
  }

  const Work& work_;
  shared& sh_;
  u32 lane_, warp_, pad_;
  u32 next_id_;
  bool next_good_;
};

template <class Codec, class Lane, class Launch>
TERSOR_DEVICE void encode_cta(const Launch& launch, encode_shared<Codec, Lane::kValueBytes>& shared) {
  auto work = work_of(launch, ptx::cta_index());
  chunk_encoder<Codec, Lane, decltype(work)>(work, shared).run();
}

}  // namespace tersor::cuda
