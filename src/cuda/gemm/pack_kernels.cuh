// Packs a matrix into layout `packed` (spec/packed.md), byte for byte as the CPU does, in three launches:
//
//   0  blocks: codebook, planes, head, inline escapes, digest. What overflows is counted, not yet placed.
//   1  the counts become places, in the order of blocks.
//   2  overflow entries (their blocks are read again: they are few), digests, gaps, header, result.
#pragma once

#include <type_traits>

#include "cuda/gemm/pack_block.cuh"

namespace tersor::cuda {

struct pack_shared {
  pack_memory warps[kWarps];
  digest_keys<2> keys;
};

/// Sum over a warp.
TERSOR_DEVICE u64 warp_sum(u64 value) {
  for (u32 step = 1; step < 32; step <<= 1) value += ptx::shfl_xor(value, step);
  return value;
}

// ---- pass 0 ----

template <class Fields>
class block_packer {
 public:
  TERSOR_DEVICE block_packer(const pack_launch& launch, const digest_keys<2>& keys, pack_memory& sh, u32 lane)
      : l_(launch), keys_(keys), sh_(sh), lane_(lane) {}

  TERSOR_DEVICE void run(u32 item) {
    const block_place at = locate_block(l_.blocks, item);
    out_ = l_.packed + packed_geometry::kHeaderBytes + static_cast<u64>(at.number) * l_.block_bytes;
    pack_block<Fields> block(l_.blocks, l_.src, at, sh_, lane_);
    block.load();
    const block_book book = block.make_book();
    block.use_book(book);
    planes p;
    escape_counts counts;
    part<0>(block, p, counts);
    part<1>(block, p, counts);
    const tile_sums low = sums_of<0>(block);
    part<2>(block, p, counts);
    part<3>(block, p, counts);
    const tile_sums high = sums_of<2>(block);
    store_planes(p);
    const u32 n_inline = counts.named < l_.inline_escapes ? counts.named : l_.inline_escapes;
    finish(at.number, book, n_inline, counts.all - n_inline, low, high);
    ptx::sync_warp();
  }

 private:
  struct planes {
    u32 low[4] = {};
    u32 high[Fields::kHighWords] = {};
  };

  template <u32 kPart>
  TERSOR_DEVICE void part(const pack_block<Fields>& block, planes& p, escape_counts& counts) {
    uint4 even, odd;
    block.template values_of<kPart>(even, odd);
    u32 words[4] = {}, escaped = 0;
#pragma unroll
    for (u32 k = 0; k < 16; ++k) {
      const u32 value = block.value_of(k < 8 ? even : odd, k % 8), found = block.code_of(value);
      escaped |= (found >> 3) << k;
      words[k / 4] |= Fields::rest_byte(value) << (8 * (k % 4));
      if (k < 8) {
        Fields::template put_code<2 * kPart>(found & 7, value, k, p.low[kPart], p.high);
      } else {
        Fields::template put_code<2 * kPart + 1>(found & 7, value, k - 8, p.low[kPart], p.high);
      }
    }
    ptx::store(reinterpret_cast<uint4*>(out_ + 512 * kPart) + lane_,
               uint4{words[0], words[1], words[2], words[3]});
    u16* entries = reinterpret_cast<u16*>(out_ + packed_geometry::escapes_at(Fields::kHalf));
    block.place_escapes(
        kPart, escaped, l_.inline_escapes, counts,
        [&](u32 number, u32 entry) { ptx::store(entries + number, static_cast<u16>(entry)); },
        [](u32, u32) {});
  }

  /// Digest sums of the tile of parts kPart and kPart + 1.
  template <u32 kPart>
  TERSOR_DEVICE tile_sums sums_of(const pack_block<Fields>& block) const {
    uint4 rows[4];
    block.template values_of<kPart>(rows[0], rows[1]);
    block.template values_of<kPart + 1>(rows[2], rows[3]);
    return digest_of(keys_, rows, lane_);
  }

  TERSOR_DEVICE void store_planes(const planes& p) {
    ptx::store(reinterpret_cast<uint4*>(out_ + packed_geometry::kLowAt) + lane_,
               uint4{p.low[0], p.low[1], p.low[2], p.low[3]});
    u8* high = out_ + packed_geometry::kHighAt;
    if constexpr (Fields::kHalf) {
      ptx::store(reinterpret_cast<uint4*>(high) + lane_, uint4{p.high[0], p.high[1], p.high[2], p.high[3]});
      ptx::store(reinterpret_cast<uint4*>(high) + 32 + lane_,
                 uint4{p.high[4], p.high[5], p.high[6], p.high[7]});
    } else {
      ptx::store(reinterpret_cast<uint2*>(high) + lane_, uint2{p.high[0], p.high[1]});
    }
  }

  TERSOR_DEVICE void finish(u32 number, const block_book& book, u32 n_inline, u32 n_overflow,
                            const tile_sums& low, const tile_sums& high) {
    u16* entries = reinterpret_cast<u16*>(out_ + packed_geometry::escapes_at(Fields::kHalf));
    for (u32 i = n_inline + lane_; i < l_.inline_escapes; i += 32) ptx::store(entries + i, u16{0});
    const u64 digest = block_digest(number, low, high, lane_);
    if (lane_ != 0) return;
    ptx::store(reinterpret_cast<uint4*>(out_ + packed_geometry::head_at(Fields::kHalf)),
               uint4{book.symbols0, book.symbols1, n_inline | n_overflow << 16, 0});
    ptx::store(l_.digests + number, digest);
    ptx::store(l_.places + number, n_overflow);
    if (n_overflow != 0)
      ptx::atomic_add(l_.group_sums + number / kPlacedBlocks, static_cast<u64>(n_overflow));
  }

  const pack_launch& l_;
  const digest_keys<2>& keys_;
  pack_memory& sh_;
  u32 lane_;
  u8* out_ = nullptr;
};

template <class Fields>
TERSOR_DEVICE void pack_blocks_cta(const pack_launch& launch, pack_shared& shared) {
  const u32 thread = ptx::thread_index(), warp = thread >> 5, n = launch.blocks.n_blocks;
  shared.keys.fill(thread);
  ptx::barrier();
  block_packer<Fields> packer(launch, shared.keys, shared.warps[warp], thread & 31);
  for (u32 i = ptx::cta_index() * kWarps + warp; i < n; i += ptx::cta_count() * kWarps) packer.run(i);
}

// ---- pass 1 ----

struct place_shared {
  u64 partial[kWarps];
};

/// One CTA per kPlacedBlocks blocks, four of them a thread.
TERSOR_DEVICE void place_overflow_cta(const pack_launch& launch, place_shared& sh) {
  constexpr u32 kEach = kPlacedBlocks / kCtaThreads;
  const u32 thread = ptx::thread_index(), lane = thread & 31, warp = thread >> 5, group = ptx::cta_index();
  const u32 n = launch.blocks.n_blocks;
  u64 before = 0;
  for (u32 i = thread; i < group; i += kCtaThreads) before += ptx::load(launch.group_sums + i);
  before = warp_sum(before);
  if (lane == 0) sh.partial[warp] = before;
  ptx::barrier();
  u64 first = 0;
  for (u32 w = 0; w < kWarps; ++w) first += sh.partial[w];
  ptx::barrier();
  const u32 mine = group * kPlacedBlocks + kEach * thread;
  u32 counts[kEach], sum = 0;
#pragma unroll
  for (u32 k = 0; k < kEach; ++k) {
    counts[k] = mine + k < n ? ptx::load(launch.places + mine + k) : 0;
    sum += counts[k];
  }
  const u32 upto = inclusive_scan(sum);
  if (lane == 31) sh.partial[warp] = upto;
  ptx::barrier();
  for (u32 w = 0; w < warp; ++w) first += sh.partial[w];
  first += upto - sum;
#pragma unroll
  for (u32 k = 0; k < kEach; ++k) {
    if (mine + k < n) ptx::store(launch.places + mine + k, static_cast<u32>(first));
    first += counts[k];
  }
  if (group + 1 == ptx::cta_count() && thread + 1 == kCtaThreads)
    ptx::store(&launch.totals->n_overflow, first);
}

// ---- pass 2 ----

struct finish_shared {
  pack_memory warps[kWarps];
  u64 partial[kWarps];
  u32 is_last;
};

/// Where the last sections lie, once the overflow is counted.
struct packed_end {
  u64 n_overflow, digests_at, n_bytes;
  bool is_countable, fits;
};
TERSOR_DEVICE packed_end end_of(const pack_launch& launch) {
  constexpr u64 kMask = packed_geometry::kSectionAlignment - 1;
  packed_end end;
  end.n_overflow = ptx::load(&launch.totals->n_overflow);
  end.digests_at = (launch.overflow_at + 4 * end.n_overflow + kMask) & ~kMask;
  end.n_bytes = (end.digests_at + 8 * static_cast<u64>(launch.blocks.n_blocks) + kMask) & ~kMask;
  end.is_countable = end.n_overflow <= 0xffffffffu;
  end.fits = end.is_countable && end.n_bytes <= launch.capacity;
  return end;
}

template <class Fields>
class pack_finisher {
 public:
  TERSOR_DEVICE pack_finisher(const pack_launch& launch, finish_shared& sh)
      : l_(launch), sh_(sh), thread_(ptx::thread_index()), end_(end_of(launch)) {}

  TERSOR_DEVICE void run() {
    if (end_.fits) {
      const u32 n = l_.blocks.n_blocks;
      for (u32 i = ptx::cta_index() * kWarps + warp(); i < n; i += ptx::cta_count() * kWarps) place_block(i);
      place_digests(n);
      if (ptx::cta_index() == 0) clear_gaps();
    }
    if (!is_last()) return;
    if (thread_ < kMatrixHeaderWords * 2) write_header();
  }

 private:
  [[nodiscard]] TERSOR_DEVICE u32 lane() const { return thread_ & 31; }
  [[nodiscard]] TERSOR_DEVICE u32 warp() const { return thread_ >> 5; }

  TERSOR_DEVICE void place_block(u32 item) {
    const block_place at = locate_block(l_.blocks, item);
    u8* head = l_.packed + packed_geometry::kHeaderBytes + static_cast<u64>(at.number) * l_.block_bytes +
               packed_geometry::head_at(Fields::kHalf);
    const uint4 words = ptx::load(reinterpret_cast<const uint4*>(head));
    if (words.z >> 16 == 0) return;
    const u32 first = ptx::load(l_.places + at.number);
    if (lane() == 0) ptx::store(reinterpret_cast<u32*>(head) + 3, first);
    u32* entries = reinterpret_cast<u32*>(l_.packed + l_.overflow_at) + first;
    pack_block<Fields> block(l_.blocks, l_.src, at, sh_.warps[warp()], lane());
    block.load();
    block.use_book({words.x, words.y});
    escape_counts counts;
    const auto part = [&](auto number) {
      uint4 even, odd;
      block.template values_of<number()>(even, odd);
      block.place_escapes(
          number(), block.escapes_of(even, odd), l_.inline_escapes, counts, [](u32, u32) {},
          [&](u32 i, u32 entry) { ptx::store(entries + i, entry); });
    };
    part(std::integral_constant<u32, 0>{});
    part(std::integral_constant<u32, 1>{});
    part(std::integral_constant<u32, 2>{});
    part(std::integral_constant<u32, 3>{});
    ptx::sync_warp();
  }

  TERSOR_DEVICE void place_digests(u32 n) {
    u64* digests = reinterpret_cast<u64*>(l_.packed + end_.digests_at);
    u64 content = 0;
    for (u32 i = ptx::cta_index() * kCtaThreads + thread_; i < n; i += ptx::cta_count() * kCtaThreads) {
      const u64 digest = ptx::load(l_.digests + i);
      ptx::store(digests + i, digest);
      content += chain_next(chain_next(chain_start(digest_domain::matrix_index, i), digest), 0);
    }
    content = warp_sum(content);
    if (lane() == 0) ptx::atomic_add(&l_.totals->content, content);
  }

  TERSOR_DEVICE void clear_gaps() {
    clear(packed_geometry::kHeaderBytes + static_cast<u64>(l_.blocks.n_blocks) * l_.block_bytes,
          l_.overflow_at);
    clear(l_.overflow_at + 4 * end_.n_overflow, end_.digests_at);
    clear(end_.digests_at + 8 * static_cast<u64>(l_.blocks.n_blocks), end_.n_bytes);
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

  /// A word a lane. The header of a matrix that does not fit is zero.
  TERSOR_DEVICE void write_header() {
    u64 word = lane() < kMatrixHeaderWords ? l_.header[lane()] : 0;
    if (lane() == kMatrixBytesWord) word = end_.n_bytes;
    if (lane() == kMatrixOverflowWord) word = end_.n_overflow;
    if (lane() == kMatrixDigestsAtWord) word = end_.digests_at;
    if (lane() == kMatrixContentWord) word = ptx::atomic_add(&l_.totals->content, u64{0});
    if (lane() == kMatrixDigestWord) word = 0;
    const u64 hash =
        lane() < kMatrixHeaderWords ? chain_next(chain_start(digest_domain::matrix_header, lane()), word) : 0;
    const u64 digest = warp_sum(hash);
    if (lane() == kMatrixDigestWord) word = digest;
    if (lane() < kMatrixHeaderWords)
      ptx::store(reinterpret_cast<u64*>(l_.packed) + lane(), end_.fits ? word : 0);
    if (lane() != 0) return;
    const std::int32_t code = end_.fits ? kOk : end_.is_countable ? kDestinationTooSmall : kSizeOverflow;
    ptx::store(l_.result, matrix_result_slot{code, 0xffffffffu, end_.is_countable ? end_.n_bytes : 0});
  }

  const pack_launch& l_;
  finish_shared& sh_;
  u32 thread_;
  packed_end end_;
};

template <class Fields>
TERSOR_DEVICE void finish_pack_cta(const pack_launch& launch, finish_shared& shared) {
  pack_finisher<Fields>(launch, shared).run();
}

}  // namespace tersor::cuda
