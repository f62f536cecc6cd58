// Y = X W^T for few tokens, from weights in the `packed` layout: mma.sync fed by cp.async, any GPU from
// compute capability 8.0, and any alignment of X.
//
// Grid: x = ctas, y = groups. A CTA owns consecutive blocks of 16 rows and goes through them kRowBlocks at a
// time (a pass). Its warps share the columns: warp w takes the blocks of 128 columns w, w + kWarps, ..., each
// with a ring of its own in shared memory, so that warps meet only at the end of a pass, to add up their
// sums.
//
// Shared memory of a warp: | kSlots blocks | kSlots slices of X (gemm_block.cuh) | repairs |; after the
// warps': sums
//   slot   the first kSlotBytes of a block: fixed part, head, near escapes
//
// What a warp does, in order, are items: (pass, column block, row block of the pass). Item i is consumed
// while the items up to i + kSlots - 1 are under way. A slice serves the items of one column block.
#pragma once

#include "cuda/gemm/gemm_block.cuh"

namespace tersor::cuda {

/// What a CTA uses at most: GPUs of compute capability 8.6, 8.9 and 12.0 have 99 KiB for it.
inline constexpr u32 kWarpGemmSharedBytes = 99 * 1024;

template <class Weight, u32 kTokensOfTile, u32 kRowBlocksOfPass, u32 kWarpsOfCta>
struct warp_gemm_sizes {
  static constexpr u32 kTokens = kTokensOfTile, kRowBlocks = kRowBlocksOfPass, kWarps = kWarpsOfCta;
  static constexpr u32 kThreads = 32 * kWarps;
  static constexpr u32 kSlotBytes = packed_geometry::block_bytes(Weight::kHalf, kNear);
  static constexpr u32 kRowOutputs = packed_geometry::kRows * kSumStride<kTokens>;  ///< floats of a row block
  static constexpr u32 kSumBytes = 4 * kRowBlocks * kRowOutputs;

  static constexpr u32 warp_bytes(u32 slots) {
    return slots * (kSlotBytes + slice_bytes(kTokens)) + kRepairBytes;
  }
  static constexpr u32 best_slots() {
    u32 slots = 2;
    while (slots < 6 && kWarps * warp_bytes(slots + 1) + kSumBytes <= kWarpGemmSharedBytes) ++slots;
    return slots;
  }
  static constexpr u32 kSlots = best_slots();
  static constexpr u32 kWarpBytes = warp_bytes(kSlots);
  static constexpr u32 kBytes = kWarps * kWarpBytes + kSumBytes;
  static_assert(kBytes <= kWarpGemmSharedBytes);
};

/// A place in a warp's order of items.
template <class Sizes>
struct item_cursor {
  u32 row = 0;    ///< first row block of the pass
  u32 col = 0;    ///< column block
  u32 index = 0;  ///< row block within the pass
  u32 end_row = 0, first_col = 0, col_blocks = 0;

  [[nodiscard]] TERSOR_DEVICE bool is_item() const { return row < end_row && col < col_blocks; }
  TERSOR_DEVICE void next() {
    const u32 left = end_row - row, n = left < Sizes::kRowBlocks ? left : Sizes::kRowBlocks;
    if (++index < n) return;
    index = 0;
    col += Sizes::kWarps;
    if (col < col_blocks) return;
    col = first_col;
    row += n;
  }
};

template <class Weight, class Sizes>
class gemm_warp {
 public:
  TERSOR_DEVICE gemm_warp(const warp_gemm_launch& launch, const group_operands& group, u8* memory, u32 warp,
                          u32 lane)
      : launch_(launch),
        group_(group),
        blocks_(group.matrix + launch.sections.blocks_at),
        slots_(memory),
        slices_(memory + Sizes::kSlots * Sizes::kSlotBytes),
        warp_(warp),
        lane_(lane),
        slot_bytes_(launch.sections.block_bytes < Sizes::kSlotBytes ? launch.sections.block_bytes
                                                                    : Sizes::kSlotBytes),
        multiplier_(launch.sections, launch.col_blocks, group.matrix, lane,
                    slices_ + Sizes::kSlots * slice_bytes(Sizes::kTokens)) {}

  /// Fills the ring for row blocks [first_row, end_row). Weights do not depend on the kernel before; X does.
  TERSOR_DEVICE void start(u32 first_token, u32 first_row, u32 end_row) {
    first_token_ = first_token;
    next_ = {first_row, warp_, 0, end_row, warp_, launch_.col_blocks};
    next_slot_ = next_slice_ = slot_ = slice_ = 0;
    if (launch_.overlap_previous != 0) {
      item_cursor<Sizes> ahead = next_;
#pragma unroll 1
      for (u32 i = 0; i + 1 < Sizes::kSlots; ++i, ahead.next()) start_block(ahead, i);
      ptx::wait_for_previous_kernel();
    }
#pragma unroll 1
    for (u32 i = 0; i + 1 < Sizes::kSlots; ++i) {
      if (launch_.overlap_previous == 0) start_block(next_, i);
      start_slice_of_next();
      next_.next();
      ptx::end_copies();
    }
    next_slot_ = Sizes::kSlots - 1;
  }

  /// Sums over this warp's columns of row blocks [row, row + n).
  TERSOR_DEVICE void pass(u32 row, u32 n, block_sums<Sizes::kTokens> (&sums)[Sizes::kRowBlocks]) {
#pragma unroll
    for (u32 r = 0; r < Sizes::kRowBlocks; ++r) clear<Sizes::kTokens>(sums[r]);
    for (u32 col = warp_; col < launch_.col_blocks; col += Sizes::kWarps) {
      const u8* slice = slices_ + slice_ * slice_bytes(Sizes::kTokens);
#pragma unroll
      for (u32 r = 0; r < Sizes::kRowBlocks; ++r) {
        if (r < n) {
          ptx::wait_copies<Sizes::kSlots - 2>();
          ptx::sync_warp();
          consume(row + r, col, slice, sums[r]);
        }
      }
      slice_ = slice_ + 1 == Sizes::kSlots ? 0 : slice_ + 1;
    }
  }

 private:
  TERSOR_DEVICE void start_block(const item_cursor<Sizes>& at, u32 slot) {
    if (!at.is_item()) return;
    const u64 block = static_cast<u64>(at.row + at.index) * launch_.col_blocks + at.col;
    const u8* from = blocks_ + block * launch_.sections.block_bytes;
    u8* to = slots_ + slot * Sizes::kSlotBytes;
#pragma unroll
    for (u32 i = 0; i < (Sizes::kSlotBytes + 511) / 512; ++i) {
      const u32 at_byte = 16 * lane_ + 512 * i;
      if (at_byte < slot_bytes_) ptx::copy_16(to + at_byte, from + at_byte);
    }
  }
  TERSOR_DEVICE void start_slice_of_next() {
    if (next_.index != 0 || !next_.is_item()) return;
    u8* slice = slices_ + next_slice_ * slice_bytes(Sizes::kTokens);
    next_slice_ = next_slice_ + 1 == Sizes::kSlots ? 0 : next_slice_ + 1;
    if (launch_.op.x_aligned != 0) {
      start_slice<Sizes::kTokens>(launch_.op, group_, first_token_, next_.col, lane_, slice);
    } else {
      copy_slice<Sizes::kTokens>(launch_.op, group_, first_token_, next_.col, lane_, slice);
    }
  }
  /// Multiplies the block in the oldest slot and starts the copy that takes the slot before it.
  TERSOR_DEVICE void consume(u32 row, u32 col, const u8* slice, block_sums<Sizes::kTokens>& sums) {
    start_block(next_, next_slot_);
    start_slice_of_next();
    next_.next();
    ptx::end_copies();
    next_slot_ = next_slot_ + 1 == Sizes::kSlots ? 0 : next_slot_ + 1;
    const u8* block = slots_ + slot_ * Sizes::kSlotBytes;
    slot_ = slot_ + 1 == Sizes::kSlots ? 0 : slot_ + 1;
    multiplier_.multiply(block, row, col, slice, sums, [] {});
  }

  const warp_gemm_launch& launch_;
  const group_operands& group_;
  const u8* blocks_;
  u8* slots_;
  u8* slices_;
  u32 warp_, lane_, slot_bytes_;
  block_multiplier<Weight> multiplier_;
  item_cursor<Sizes> next_;
  u32 first_token_ = 0, next_slot_ = 0, next_slice_ = 0, slot_ = 0, slice_ = 0;
};

template <class Weight, class Sizes>
TERSOR_DEVICE void warp_gemm_cta(const warp_gemm_launch& launch, u8* memory) {
  const u32 thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  ptx::release_next_kernel();
  const u32 first_row =
      static_cast<u32>(static_cast<u64>(ptx::cta_index()) * launch.row_blocks / launch.ctas);
  const u32 end_row =
      static_cast<u32>(static_cast<u64>(ptx::cta_index() + 1) * launch.row_blocks / launch.ctas);
  if (launch.op.first_token != nullptr) ptx::wait_for_previous_kernel();
  const group_operands group = operands_of_group(launch.op, ptx::cta_index_y());
  float* shared = reinterpret_cast<float*>(memory + Sizes::kWarps * Sizes::kWarpBytes);
  gemm_warp<Weight, Sizes> lanes(launch, group, memory + warp * Sizes::kWarpBytes, warp, lane);
  for (u32 first_token = 0; first_token < group.n_tokens; first_token += Sizes::kTokens) {
    lanes.start(first_token, first_row, end_row);
    for (u32 row = first_row; row < end_row; row += Sizes::kRowBlocks) {
      const u32 left = end_row - row, n = left < Sizes::kRowBlocks ? left : Sizes::kRowBlocks;
      block_sums<Sizes::kTokens> sums[Sizes::kRowBlocks];
      lanes.pass(row, n, sums);
      // One warp after the other, so that the order of the sums is fixed.
      for (u32 turn = 0; turn < Sizes::kWarps; ++turn) {
        if (warp == turn) {
#pragma unroll
          for (u32 r = 0; r < Sizes::kRowBlocks; ++r)
            put_sums<Sizes::kTokens>(sums[r], turn != 0, lane, shared + r * Sizes::kRowOutputs);
        }
        ptx::barrier();
      }
      for (u32 i = thread; i < 16 * Sizes::kRowBlocks * (Sizes::kTokens / 4); i += Sizes::kThreads) {
        // Neighbouring threads store neighbouring rows.
        const u32 out = i % (16 * Sizes::kRowBlocks), token = 4 * (i / (16 * Sizes::kRowBlocks));
        if (out >= 16 * n) continue;
        store_outputs<Weight>(
            launch.op, group, 16 * row + out, first_token + token,
            *reinterpret_cast<const float4*>(shared + out * kSumStride<Sizes::kTokens> + token));
      }
      ptx::barrier();
    }
  }
}

}  // namespace tersor::cuda
