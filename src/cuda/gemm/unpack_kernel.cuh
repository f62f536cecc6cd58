// Unpacks a matrix of layout `packed` (spec/packed.md) and compares the digest of every block.
//
// A warp works on one block at a time: the block comes to shared memory while the one before it is decoded,
// half of it (64 columns) at a time goes from fragment order through shared memory to rows, so that stores
// are whole lines. The header and the content digest are not looked at: the host has checked them.
#pragma once

#include "cuda/codec/digest.cuh"
#include "cuda/gemm/matrix_access.cuh"
#include "cuda/gemm/packed_decode.cuh"

namespace tersor::cuda {

/// Columns of a half of a block, and bytes from one of its rows to the next: no two lanes meet in a bank.
inline constexpr u32 kHalfCols = packed_geometry::kCols / 2, kHalfPitch = 2 * kHalfCols + 16;

template <class Weight>
struct unpack_shared {
  static constexpr u32 kStageBytes = packed_geometry::escapes_at(Weight::kHalf) + kNearBytes;
  static constexpr u32 kStages = 2;
  struct of_warp {
    alignas(16) u8 stages[kStages][kStageBytes];
    alignas(16) u8 repairs[kRepairBytes];
    alignas(16) u8 half[packed_geometry::kRows * kHalfPitch];
  };
  of_warp warps[kWarps];
  digest_keys<2> keys;
};

/// First bad block, with its code: the smallest of block << 32 | code.
TERSOR_DEVICE void note_bad_block(matrix_result_slot* result, u32 block, u32 code) {
  if (result != nullptr)
    ptx::atomic_min(reinterpret_cast<u64*>(result), static_cast<u64>(block) << 32 | code);
}
/// What `result` is before the first bad block.
TERSOR_DEVICE void begin_unpack(const unpack_launch& launch) {
  if (ptx::thread_index() != 0 || ptx::cta_index() != 0) return;
  ptx::store(reinterpret_cast<u64*>(launch.result), u64{0xffffffff} << 32);
  ptx::store(&launch.result->n_bytes, launch.n_bytes);
}

template <class Weight>
class unpack_warp {
 public:
  using shared = unpack_shared<Weight>;

  TERSOR_DEVICE unpack_warp(const unpack_launch& launch, shared& sh, u32 warp, u32 lane)
      : l_(launch), keys_(sh.keys), mine_(sh.warps[warp]), lane_(lane) {
    const u32 near_bytes = 2 * (l_.inline_escapes < kNear ? l_.inline_escapes : kNear);
    staged_units_ = (packed_geometry::escapes_at(Weight::kHalf) + near_bytes) / 16;
  }

  TERSOR_DEVICE void run(u32 first, u32 step) {
    const u32 n = l_.blocks.n_blocks;
    for (u32 at = 16 * lane_; at < kRepairBytes; at += 512)
      *reinterpret_cast<uint4*>(mine_.repairs + at) = uint4{0, 0, 0, 0};
    u32 turn = 0;
    if (first < n) fetch(first, 0);
    for (u32 i = first; i < n; i += step, ++turn) {
      if (n - i > step) fetch(i + step, turn + 1);
      ptx::end_copies();
      unpack(i, turn);
    }
  }

 private:
  TERSOR_DEVICE void fetch(u32 i, u32 turn) {
    const u8* from = l_.packed + block_offset(locate_block(l_.blocks, i).number);
    u8* to = mine_.stages[turn % shared::kStages];
    for (u32 unit = lane_; unit < staged_units_; unit += 32) ptx::copy_16(to + 16 * unit, from + 16 * unit);
    if (turn == 0) ptx::end_copies();
  }
  [[nodiscard]] TERSOR_DEVICE u64 block_offset(u32 number) const {
    return packed_geometry::kHeaderBytes + static_cast<u64>(number) * l_.block_bytes;
  }

  TERSOR_DEVICE void unpack(u32 i, u32 turn) {
    const block_place at = locate_block(l_.blocks, i);
    const u64 wanted = ptx::load(reinterpret_cast<const u64*>(l_.packed + l_.digests_at) + at.number);
    const u8* block = mine_.stages[turn % shared::kStages];
    ptx::wait_copies<1>();
    ptx::sync_warp();
    const block_head head = load_head(block + packed_geometry::head_at(Weight::kHalf));
    const escape_lists lists = lists_of(block, at.number);
    const own_repairs own = scatter_near<Weight>(head, lists, lane_, mine_.repairs);
    if (own.many) {
      scatter_far<Weight>(lists, head.counts, head.first_overflow, head.symbols0 & 0xffu, lane_,
                          mine_.repairs);
    }
    ptx::sync_warp();
    const block_lane<Weight> values(block, mine_.repairs, head, lane_);
    const tile_sums low = half<0>(values, at), high = half<1>(values, at);
    wipe_repairs(own, lane_, mine_.repairs);
    judge(at.number, head, block_digest(at.number, low, high, lane_) == wanted);
    ptx::sync_warp();
  }

  [[nodiscard]] TERSOR_DEVICE escape_lists lists_of(const u8* block, u32 number) const {
    const u32 at = packed_geometry::escapes_at(Weight::kHalf);
    return {.near_entries = reinterpret_cast<const u16*>(block + at),
            .n_near = l_.inline_escapes < kNear ? l_.inline_escapes : kNear,
            .far_entries = reinterpret_cast<const u16*>(l_.packed + block_offset(number) + at),
            .overflow = reinterpret_cast<const u32*>(l_.packed + l_.overflow_at),
            .n_overflow = l_.n_overflow,
            .places = l_.inline_escapes};
  }

  /// Four steps: to shared memory and from there to the matrix; their digest sums.
  template <u32 kHalf>
  TERSOR_DEVICE tile_sums half(const block_lane<Weight>& values, const block_place& at) {
    uint4 rows[4];
    decode<2 * kHalf>(values, rows[0], rows[1]);
    decode<2 * kHalf + 1>(values, rows[2], rows[3]);
    if (l_.dst != nullptr) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s) put(rows[s], s);
      ptx::sync_warp();
      if (l_.blocks.in_eights) {
        store_eights(at, kHalf * kHalfCols);
      } else {
        store_ones(at, kHalf * kHalfCols);
      }
    }
    const tile_sums sums = digest_of(keys_, rows, lane_);
    ptx::sync_warp();
    return sums;
  }

  template <u32 kPart>
  static TERSOR_DEVICE void decode(const block_lane<Weight>& values, uint4& even_step, uint4& odd_step) {
    u32 even[4], odd[4];
    values.template decode<kPart>(even, odd);
    even_step = uint4{even[0], even[1], even[2], even[3]};
    odd_step = uint4{odd[0], odd[1], odd[2], odd[3]};
  }

  /// One step of the lane's values at their rows and columns.
  TERSOR_DEVICE void put(const uint4& v, u32 step) {
    u8* upper = mine_.half + lane_ / 4 * kHalfPitch + 32 * step + lane_ % 4 * 4;
    u8* lower = upper + 8 * kHalfPitch;
    *reinterpret_cast<u32*>(upper) = v.x;
    *reinterpret_cast<u32*>(lower) = v.y;
    *reinterpret_cast<u32*>(upper + 16) = v.z;
    *reinterpret_cast<u32*>(lower + 16) = v.w;
  }
  [[nodiscard]] TERSOR_DEVICE u16 value_at(u32 row, u32 col) const {
    return *reinterpret_cast<const u16*>(mine_.half + row * kHalfPitch + 2 * col);
  }

  TERSOR_DEVICE void store_eights(const block_place& at, u32 first_col) {
    block_extent extent = extent_of(l_.blocks, at);
    extent.cols = extent.cols > first_col ? extent.cols - first_col : 0;
    const bool down = l_.blocks.column_major;
#pragma unroll
    for (u32 i = 0; i < packed_geometry::kRows * kHalfCols / 8 / 32; ++i) {
      const eight_values v = eight_of<kHalfCols>(down, 32 * i + lane_);
      const u32 live = live_values(down, v, extent);
      u16* to = l_.dst + value_index(l_.blocks, at, v.row, first_col + v.col);
      if (live == 8) {
        ptx::store(reinterpret_cast<uint4*>(to), down ? column(v) : row(v));
      } else {
        for (u32 k = 0; k < live; ++k)
          ptx::store(to + k, down ? value_at(v.row + k, v.col) : value_at(v.row, v.col + k));
      }
    }
  }
  [[nodiscard]] TERSOR_DEVICE uint4 row(const eight_values& v) const {
    return *reinterpret_cast<const uint4*>(mine_.half + v.row * kHalfPitch + 2 * v.col);
  }
  [[nodiscard]] TERSOR_DEVICE uint4 column(const eight_values& v) const {
    u32 pairs[4];
#pragma unroll
    for (u32 k = 0; k < 4; ++k)
      pairs[k] = value_at(v.row + 2 * k, v.col) | static_cast<u32>(value_at(v.row + 2 * k + 1, v.col)) << 16;
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }

  /// Neighbouring lanes store neighbouring values.
  TERSOR_DEVICE void store_ones(const block_place& at, u32 first_col) {
    const block_extent extent = extent_of(l_.blocks, at);
    for (u32 i = lane_; i < packed_geometry::kRows * kHalfCols; i += 32) {
      const u32 row = l_.blocks.column_major ? i % packed_geometry::kRows : i / kHalfCols;
      const u32 col = l_.blocks.column_major ? i / packed_geometry::kRows : i % kHalfCols;
      if (row < extent.rows && first_col + col < extent.cols)
        ptx::store(l_.dst + value_index(l_.blocks, at, row, first_col + col), value_at(row, col));
    }
  }

  TERSOR_DEVICE void judge(u32 number, const block_head& head, bool digest_is_right) {
    const u32 n_overflow = head.counts >> 16;
    const bool inside =
        (head.counts & 0xffffu) <= l_.inline_escapes &&
        (n_overflow == 0 ? head.first_overflow == 0
                         : static_cast<u64>(head.first_overflow) + n_overflow <= l_.n_overflow);
    if (lane_ == 0 && !(inside && digest_is_right))
      note_bad_block(l_.result, number, static_cast<u32>(inside ? kDigestMismatch : kMalformed));
  }

  const unpack_launch& l_;
  const digest_keys<2>& keys_;
  typename shared::of_warp& mine_;
  u32 lane_, staged_units_;
};

template <class Weight>
TERSOR_DEVICE void unpack_cta(const unpack_launch& launch, unpack_shared<Weight>& shared) {
  const u32 thread = ptx::thread_index(), warp = thread >> 5;
  shared.keys.fill(thread);
  ptx::barrier();
  unpack_warp<Weight>(launch, shared, warp, thread & 31)
      .run(ptx::cta_index() * kWarps + warp, ptx::cta_count() * kWarps);
}

}  // namespace tersor::cuda
