// The end of a frame: the warp that finishes its last chunk completes the header, or reads it and decides.
#pragma once

#include "codec/header_verdict.hpp"
#include "cuda/codec/digest.cuh"
#include "cuda/codec/work.cuh"

namespace tersor::cuda {

/// Counts `chunks` of a frame as finished. True, in all lanes, for the warp that finished the last ones: its
/// atomics see what the others added to the totals.
TERSOR_DEVICE bool finished_last(frame_totals* totals, u32 chunks, u32 n_chunks, u32 lane) {
  u32 last = 0;
  if (lane == 0) {
    ptx::fence();
    last = ptx::atomic_add(&totals->done, chunks) + chunks == n_chunks ? 1 : 0;
  }
  return ptx::shfl(last, 0) != 0;
}

/// Reads the totals and leaves them zero for the next call.
TERSOR_DEVICE frame_totals take_totals(frame_totals* totals, u32 lane) {
  // One word a lane, all at once.
  static_assert(sizeof(frame_totals) == 8 * sizeof(u32));
  const u32 mine = lane < 8 ? ptx::atomic_exchange(reinterpret_cast<u32*>(totals) + lane, 0u) : 0;
  const auto pair = [&](u32 at) {
    return static_cast<u64>(ptx::shfl(mine, at + 1)) << 32 | ptx::shfl(mine, at);
  };
  frame_totals t{};
  t.words = pair(0);
  t.index = pair(2);
  t.bad_record = ptx::shfl(mine, 5);
  t.bad_chunk = ptx::shfl(mine, 6);
  t.bad_page = ptx::shfl(mine, 7);
  return t;
}

TERSOR_DEVICE u64 align_section(u64 at) {
  return (at + 127) & ~u64{127};
}

/// Zeroes [from, to), at most 128 bytes, both multiples of 4.
TERSOR_DEVICE void zero_padding(u8* frame, u64 from, u64 to, u32 lane) {
  if (from + 4 * lane < to) ptx::store(reinterpret_cast<u32*>(frame + from) + lane, 0u);
}

/// Writes the header, the padding and the result of a frame whose chunks are all written.
/// Whether the entries of the codebook in a header's words are distinct symbols; one word a lane.
TERSOR_DEVICE bool has_valid_book(u64 word, u32 n_entries, u32 symbol_bits, u32 lane) {
  const u64 low = ptx::shfl(word, kCodebookWord), high = ptx::shfl(word, kCodebookWord + 1);
  const u32 mine =
      static_cast<u32>((lane & 8) != 0 ? high >> (8 * (lane & 7)) : low >> (8 * (lane & 7))) & 0xff;
  bool good = lane >= n_entries || mine >> symbol_bits == 0;
  good = good && (lane < n_entries || lane >= 16 || mine == 0);
  for (u32 i = 0; i + 1 < n_entries; ++i) {
    const u32 other = ptx::shfl(mine, i);
    good = good && (lane <= i || lane >= n_entries || other != mine);
  }
  return ptx::all(good);
}

/// By value, so that the caller's copy stays in registers.
template <class Work>
TERSOR_DEVICE_RARE void end_encode(Work work, u32 f, u32 n_entries, u32 symbol_bits, u32 lane) {
  const frame_shape& s = work.shape();
  const frame_totals t = take_totals(work.totals(f), lane);
  const u64 end = s.tails + 4 * t.words, n_bytes = align_section(end);
  result_slot result{kOk, 0xffffffff, n_bytes, 0, 0xffffffff, 0};
  if (t.bad_page != 0) {
    result.code = kInvalidArgument;
  } else if (n_bytes > s.n_bytes) {
    result.code = kDestinationTooSmall;
  } else {
    u8* frame = work.frame(f);
    u64 word = 0;
    if (lane < kHeaderWords) {
      word = work.header()[lane];
      if (lane == kTailWordsWord) word = t.words;
      if (lane == kIndexDigestWord) word = t.index;
      if ((lane == kCodebookWord || lane == kCodebookWord + 1) && work.codebook() != nullptr)
        word = ptx::load(reinterpret_cast<const u64*>(work.codebook()) + (lane - kCodebookWord));
      if (lane == kCodebookWord + 1 && n_entries < 16) word &= ~u64{0} >> 8;
    }
    if (!has_valid_book(word, n_entries, symbol_bits, lane)) result.code = kInvalidArgument;
    result.digest = header_digest(word, lane);
    if (lane < kHeaderWords)
      ptx::store(reinterpret_cast<u64*>(frame) + lane, lane == kHeaderDigestWord ? result.digest : word);
    const u64 index_end = kHeaderBytes + static_cast<u64>(kRecordBytes) * s.n_chunks;
    zero_padding(frame, index_end, align_section(index_end), lane);
    zero_padding(frame, end, n_bytes, lane);
  }
  if (lane == 0) ptx::store(work.result(f), result);
}

/// Whether all bytes of [from, to), at most 128, are zero.
TERSOR_DEVICE bool is_zero(const u8* frame, u64 from, u64 to, u32 lane) {
  bool zero = true;
  for (u64 i = from + lane; i < to; i += 32) zero = zero && ptx::load(frame + i) == 0;
  return ptx::all(zero);
}

/// What the verdict on a frame needs of its bytes: word `lane` of the header, and whether the padding behind
/// the index and behind the tails is zero as far as it can be read.
struct frame_ends {
  u64 word = 0;
  bool zero_padded = true;
};

/// Read ahead of the last atomics, because each trip to memory counts in small frames.
template <class Work>
TERSOR_DEVICE frame_ends read_ends(const Work& work, u32 f, u32 lane) {
  const frame_shape& s = work.shape();
  const u8* frame = work.frame(f);
  frame_ends ends;
  if (s.n_bytes < kHeaderBytes) return ends;
  if (lane < kHeaderWords) ends.word = ptx::load(reinterpret_cast<const u64*>(frame) + lane);
  const u64 index_end = kHeaderBytes + static_cast<u64>(kRecordBytes) * s.n_chunks;
  const u64 words = ptx::shfl(ends.word, kTailWordsWord);
  bool zero = true;
  if (s.n_bytes >= s.tails) {
    const u64 at = index_end + 4 * lane;
    if (at < align_section(index_end)) zero = ptx::load(reinterpret_cast<const u32*>(frame + at)) == 0;
    if (words <= (s.n_bytes - s.tails) / 4) {
      const u64 end = s.tails + 4 * words,
                last = align_section(end) < s.n_bytes ? align_section(end) : s.n_bytes;
      if (end + 4 * lane < last)
        zero = ptx::load(reinterpret_cast<const u32*>(frame + end) + lane) == 0 && zero;
    }
  }
  ends.zero_padded = ptx::all(zero);
  return ends;
}

/// The verdict on a frame whose chunks are all judged.
template <class Work>
TERSOR_DEVICE_RARE void end_decode(Work work, u32 f, frame_ends ends, u32 lane) {
  const frame_shape& s = work.shape();
  const frame_totals t = take_totals(work.totals(f), lane);
  result_slot result{kTruncated, 0xffffffff, 0, 0, 0xffffffff, 0};
  if (s.n_bytes >= kHeaderBytes) {
    const u64 digest = header_digest(ends.word, lane);
    u64 w[kHeaderWords];
#pragma unroll
    for (u32 i = 0; i < kHeaderWords; ++i) w[i] = ptx::shfl(ends.word, i);
    const codec_detail::book_facts book = codec_detail::book_of(w[1]);
    const codec_detail::header_verdict v = codec_detail::judge_header(
        w, digest, s.n_bytes, has_valid_book(ends.word, book.n_entries, book.symbol_bits, lane));
    result.code = v.code;
    result.digest = digest;
    const u64* expected = work.header();
    if (v.code == kOk) {
      result.frame_bytes = v.frame_bytes;
      if (w[2] != expected[2] || (w[1] & 0xffff0000u) != (expected[1] & 0xffff0000u)) {
        result.code = kMismatch;
      } else if (t.index != w[kIndexDigestWord]) {
        result.code = kDigestMismatch;
      } else if (t.bad_record != 0) {
        result.code = kMalformed;
        result.chunk = ~t.bad_record;
      } else if (t.words != w[kTailWordsWord] || !ends.zero_padded) {
        result.code = kMalformed;
      } else if (t.bad_chunk != 0) {
        const u32 verdict = ~t.bad_chunk & 7;
        result.chunk = ~t.bad_chunk >> 3;
        result.code = verdict == static_cast<u32>(chunk_verdict::malformed)  ? kMalformed
                      : verdict == static_cast<u32>(chunk_verdict::bad_page) ? kInvalidArgument
                                                                             : kDigestMismatch;
      }
    }
  }
  if (lane == 0) ptx::store(work.result(f), result);
}

}  // namespace tersor::cuda
