// Pages that do not fit their slot: raw frames in the overflow area, written and read by kernels of their own
// that look at the results of the codec kernels, so that those stay small. A CTA works on one frame at a
// time.
//
// A raw frame (spec/frame.md) here: header | 8 bytes a chunk of 16,384: digest | the page's bytes, whose
// digest tiles are 2,048 bytes of two-byte words, whatever the dtype.
#pragma once

#include "cuda/codec/frame_end.cuh"

namespace tersor::cuda {

inline constexpr u32 kRawTileBytes = 2048;

struct raw_shared {
  digest_keys<2> keys;
  tile_sums sums[kWarps];
  u64 index;
  u32 place;
  u32 bad;  ///< 1: bad chunk, 2: bad page
  u32 bad_chunk;
};

template <class Lane>
class raw_page {
 public:
  /// Values a lane holds of a row of 16 bytes.
  static constexpr u32 kRowValues = 16 / Lane::kValueBytes;

  TERSOR_DEVICE raw_page(const page_work& work, raw_shared& sh, u32 f)
      : work_(work),
        sh_(sh),
        f_(f),
        lane_(ptx::thread_index() & 31),
        warp_(ptx::thread_index() >> 5),
        bytes_(work.shape().n_values * Lane::kValueBytes) {}

  [[nodiscard]] TERSOR_DEVICE u32 n_chunks() const { return static_cast<u32>((bytes_ + 16383) / 16384); }
  [[nodiscard]] TERSOR_DEVICE u64 payload_at() const {
    return align_section(kHeaderBytes + 8 * static_cast<u64>(n_chunks()));
  }

  /// Encodes page f to `to`.
  TERSOR_DEVICE result_slot write(u8* to, u32 place) {
    begin();
    for (u32 c = 0; c < n_chunks(); ++c) {
      uint4 x[4];
      for (u32 s = 0; s < 4; ++s) {
        x[s] = load_values(c, s);
        store_payload(to, c, s, x[s]);
      }
      const u64 digest = digest_chunk(c, x);
      if (ptx::thread_index() == 0) {
        ptx::store(reinterpret_cast<u64*>(to + kHeaderBytes) + c, digest);
        sh_.index += chain_next(chain_start(digest_domain::index, c), digest);
      }
      ptx::barrier();
    }
    const u64 end = payload_at() + bytes_, n_bytes = align_section(end);
    result_slot result{kOk, 0xffffffff, n_bytes, 0, place, 0};
    if (warp_ == 0) {
      const u64 word = header_word();
      result.digest = header_digest(word, lane_);
      if (lane_ < kHeaderWords)
        ptx::store(reinterpret_cast<u64*>(to) + lane_, lane_ == kHeaderDigestWord ? result.digest : word);
    }
    const u64 index_end = kHeaderBytes + 8 * static_cast<u64>(n_chunks());
    for (u64 i = index_end + ptx::thread_index(); i < payload_at(); i += kCtaThreads)
      ptx::store(to + i, u8{0});
    for (u64 i = end + ptx::thread_index(); i < n_bytes; i += kCtaThreads) ptx::store(to + i, u8{0});
    return result;
  }

  /// Decodes the raw frame at `from` into page f.
  TERSOR_DEVICE result_slot read(const u8* from, u32 place) {
    begin();
    for (u32 c = 0; c < n_chunks(); ++c) {
      uint4 x[4];
      for (u32 s = 0; s < 4; ++s) {
        x[s] = load_payload(from, c, s);
        store_values(c, s, x[s]);
      }
      const u64 digest = digest_chunk(c, x);
      if (ptx::thread_index() == 0) {
        const u64 want = ptx::load(reinterpret_cast<const u64*>(from + kHeaderBytes) + c);
        sh_.index += chain_next(chain_start(digest_domain::index, c), want);
        if (digest != want && (sh_.bad & 1) == 0) {
          sh_.bad |= 1;
          sh_.bad_chunk = c;
        }
      }
      ptx::barrier();
    }
    return verdict(from, place);
  }

 private:
  TERSOR_DEVICE void begin() {
    sh_.keys.fill(ptx::thread_index());
    if (ptx::thread_index() == 0) {
      sh_.index = 0;
      sh_.bad = 0;
      sh_.bad_chunk = 0xffffffff;
    }
    ptx::barrier();
  }

  /// The header of the page's raw frame, word `lane`: the coded one's without levels, codebook and tails.
  [[nodiscard]] TERSOR_DEVICE u64 header_word() const {
    if (lane_ >= kHeaderWords) return 0;
    u64 word = work_.header()[lane_];
    if (lane_ == 1) word &= 0x0000ffffff00ffffu;
    if (lane_ == kTailWordsWord || lane_ == kCodebookWord || lane_ == kCodebookWord + 1) word = 0;
    if (lane_ == kIndexDigestWord) word = sh_.index;
    return word;
  }

  /// First value of the lane's 16 bytes in row s of its tile of chunk c.
  [[nodiscard]] TERSOR_DEVICE u64 first_byte(u32 c, u32 s) const {
    return (static_cast<u64>(c) * kWarps + warp_) * kRawTileBytes + 512 * s + 16 * lane_;
  }
  /// Bytes of those sixteen that exist.
  [[nodiscard]] TERSOR_DEVICE u32 live_bytes(u64 first) const {
    return first >= bytes_ ? 0 : bytes_ - first < 16 ? static_cast<u32>(bytes_ - first) : 16;
  }

  TERSOR_DEVICE uint4 load_values(u32 c, u32 s) {
    const u64 first = first_byte(c, s);
    const u32 n = live_bytes(first) / Lane::kValueBytes;
    const auto tiles = work_.template tiles<Lane>(f_);
    u32 words[4] = {0, 0, 0, 0};
    for (u32 i = 0; i < n; ++i) {
      const u64 v = first / Lane::kValueBytes + i;
      const u32 value = tiles.load_value(static_cast<u32>(v / kTile), static_cast<u32>(v % kTile));
      words[i * Lane::kValueBytes / 4] |= value << (8 * (i * Lane::kValueBytes % 4));
    }
    return {words[0], words[1], words[2], words[3]};
  }
  TERSOR_DEVICE void store_values(u32 c, u32 s, const uint4& x) {
    const u64 first = first_byte(c, s);
    const u32 n = live_bytes(first) / Lane::kValueBytes;
    const auto tiles = work_.template tiles<Lane>(f_);
    const u32 words[4] = {x.x, x.y, x.z, x.w};
    for (u32 i = 0; i < n; ++i) {
      const u64 v = first / Lane::kValueBytes + i;
      const u32 value = words[i * Lane::kValueBytes / 4] >> (8 * (i * Lane::kValueBytes % 4));
      if (!tiles.store_value(static_cast<u32>(v / kTile), static_cast<u32>(v % kTile), value)) sh_.bad |= 2;
    }
  }
  TERSOR_DEVICE void store_payload(u8* to, u32 c, u32 s, const uint4& x) {
    const u64 first = first_byte(c, s);
    store_bytes<bf16_lane>(to + payload_at() + first, x, live_bytes(first) / 2);
    if (live_bytes(first) % 2 != 0) {
      const u32 last = live_bytes(first) - 1;
      ptx::store(to + payload_at() + first + last,
                 static_cast<u8>(bf16_lane::word(x, last / 4) >> (8 * (last % 4))));
    }
  }
  TERSOR_DEVICE uint4 load_payload(const u8* from, u32 c, u32 s) {
    const u64 first = first_byte(c, s);
    const u32 n = live_bytes(first);
    u32 words[4] = {0, 0, 0, 0};
    for (u32 i = 0; i < n; ++i)
      words[i / 4] |= static_cast<u32>(ptx::load(from + payload_at() + first + i)) << (8 * (i % 4));
    return {words[0], words[1], words[2], words[3]};
  }

  /// Digest of chunk c of which each warp holds a tile; right in warp 0.
  TERSOR_DEVICE u64 digest_chunk(u32 c, const uint4 (&x)[4]) {
    const tile_sums sums = digest_of<2>(sh_.keys, x, lane_);
    if (lane_ == 0) sh_.sums[warp_] = sums;
    ptx::barrier();
    const u32 n_tiles = static_cast<u32>((bytes_ + kRawTileBytes - 1) / kRawTileBytes);
    return chunk_digest(sh_.sums, kWarps * c, n_tiles, lane_);
  }

  TERSOR_DEVICE result_slot verdict(const u8* from, u32 place) {
    result_slot result{kOk, 0xffffffff, 0, 0, place, 0};
    if (warp_ != 0) return result;
    const u64 mine = lane_ < kHeaderWords ? ptx::load(reinterpret_cast<const u64*>(from) + lane_) : 0;
    result.digest = header_digest(mine, lane_);
    const u64 n_bytes = align_section(payload_at() + bytes_);
    u64 w[kHeaderWords];
    for (u32 i = 0; i < kHeaderWords; ++i) w[i] = ptx::shfl(mine, i);
    const codec_detail::header_verdict v = codec_detail::judge_header(w, result.digest, n_bytes, true);
    result.code = v.code;
    if (v.code != kOk) return result;
    result.frame_bytes = v.frame_bytes;
    const u64 expected = work_.header()[1] & 0xff000000u;
    if (w[2] != work_.header()[2] || (w[1] & 0xffff0000u) != expected) {
      result.code = kMismatch;
    } else if (sh_.index != w[kIndexDigestWord]) {
      result.code = kDigestMismatch;
    } else if (!is_zero(from, kHeaderBytes + v.index_bytes, payload_at(), lane_) ||
               !is_zero(from, v.tails_end, v.frame_bytes, lane_)) {
      result.code = kMalformed;
    } else if ((sh_.bad & 2) != 0) {
      result.code = kInvalidArgument;
    } else if ((sh_.bad & 1) != 0) {
      result.code = kDigestMismatch;
      result.chunk = sh_.bad_chunk;
    }
    return result;
  }

  const page_work& work_;
  raw_shared& sh_;
  u32 f_, lane_, warp_;
  u64 bytes_;
};

/// After encoding: gives each page that did not fit a place, as long as there are any.
template <class Lane>
TERSOR_DEVICE void store_overflow_cta(const page_launch& launch, raw_shared& shared) {
  const page_work work(launch, ptx::cta_index());
  for (u32 f = work.first(); f < work.n_frames(); f += work.step()) {
    if (ptx::load(&work.result(f)->code) != kDestinationTooSmall) continue;
    if (ptx::thread_index() == 0) shared.place = ptx::atomic_add(launch.overflow_used, 1u);
    ptx::barrier();
    const u32 place = shared.place;
    if (place < launch.overflow_places) {
      const result_slot result =
          raw_page<Lane>(work, shared, f).write(launch.overflow + place * launch.overflow_stride, place);
      if (ptx::thread_index() == 0) ptx::store(work.result(f), result);
    }
    ptx::barrier();
  }
}

/// Beside decoding: pages in the overflow area, and those that encoding could not keep.
template <class Lane>
TERSOR_DEVICE void load_overflow_cta(const page_launch& launch, raw_shared& shared) {
  const page_work work(launch, ptx::cta_index());
  for (u32 f = work.first(); f < work.n_frames(); f += work.step()) {
    const std::int32_t code = ptx::load(&work.where(f)->code);
    const u32 place = ptx::load(&work.where(f)->overflow);
    if (code == kOk && place == 0xffffffff) continue;
    result_slot result{code, 0xffffffff, 0, 0, place, 0};
    if (code == kOk && place >= launch.overflow_places) result.code = kInvalidArgument;
    if (result.code == kOk)
      result = raw_page<Lane>(work, shared, f).read(launch.overflow + place * launch.overflow_stride, place);
    if (ptx::thread_index() == 0) ptx::store(work.result(f), result);
    ptx::barrier();
  }
}

}  // namespace tersor::cuda
