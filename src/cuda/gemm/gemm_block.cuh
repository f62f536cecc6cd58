// One block of weights times a slice of X by a warp.
//
// A slice is kTokens rows of 128 columns of X in shared memory, as two halves of 64 columns (128 bytes a
// row): 16-byte chunk c of row n of a half stands at chunk c ^ (n % 8), so that ldmatrix meets no bank
// conflict, and as wgmma wants it.
#pragma once

#include "cuda/gemm/gemm_outputs.cuh"
#include "cuda/ptx/wgmma.cuh"

namespace tersor::cuda {

/// Bytes of a slice of n tokens.
TERSOR_HD constexpr u32 slice_bytes(u32 n_tokens) {
  return n_tokens * packed_geometry::kCols * 2;
}

/// Where chunk 0..15 of a row stands.
template <u32 kTokens>
TERSOR_DEVICE u32 chunk_place(u32 row, u32 chunk) {
  return chunk / 8 * (kTokens * 128) + row * 128 + 16 * ((chunk ^ row) % 8);
}

/// A warp starts the copies of columns [128 col_block, + 128) of tokens [first_token, + kTokens) to a slice;
/// what X does not have becomes zero.
template <u32 kTokens>
TERSOR_DEVICE void start_slice(const gemm_operands& op, const group_operands& g, u32 first_token,
                               u32 col_block, u32 lane, u8* slice) {
  const u32 chunk = lane % 16, col = col_block * packed_geometry::kCols + 8 * chunk;
  const u32 left = col < op.cols ? op.cols - col : 0;
  const u32 n_bytes = left < 8 ? 2 * left : 16;
#pragma unroll 4
  for (u32 i = 0; i < kTokens / 2; ++i) {
    const u32 row = 2 * i + lane / 16, token = first_token + row;
    const bool there = token < g.n_tokens && n_bytes != 0;
    const u16* from = there ? g.x + token * op.ldx + col : g.x;
    ptx::copy_16_or_zero(slice + chunk_place<kTokens>(row, chunk), from, there ? n_bytes : 0);
  }
}
/// The same for an X whose rows are not aligned, done on return.
template <u32 kTokens>
TERSOR_DEVICE_RARE void copy_slice(const gemm_operands& op, const group_operands& g, u32 first_token,
                                   u32 col_block, u32 lane, u8* slice) {
  for (u32 row = 0; row < kTokens; ++row) {
    const u32 token = first_token + row;
    for (u32 i = lane; i < packed_geometry::kCols; i += 32) {
      const u32 col = col_block * packed_geometry::kCols + i;
      const bool there = token < g.n_tokens && col < op.cols;
      const u16 value = there ? ptx::load(g.x + token * op.ldx + col) : u16{0};
      *reinterpret_cast<u16*>(slice + chunk_place<kTokens>(row, i / 8) + 2 * (i % 8)) = value;
    }
  }
}

/// What a warp needs to multiply blocks: its repairs, and the way to escapes that are not in the block's
/// copy.
template <class Weight>
class block_multiplier {
 public:
  TERSOR_DEVICE block_multiplier(const packed_sections& sections, u32 col_blocks, const u8* matrix, u32 lane,
                                 u8* repairs)
      : sections_(sections),
        col_blocks_(col_blocks),
        matrix_(matrix),
        lane_(lane),
        n_near_(sections.inline_places < kNear ? sections.inline_places : kNear),
        repairs_(repairs) {
    for (u32 at = 16 * lane_; at < kRepairBytes; at += 512)
      *reinterpret_cast<uint4*>(repairs_ + at) = make_uint4(0, 0, 0, 0);
    ptx::sync_warp();
  }

  /// sums += block (row, col) times the slice. `done()` is called when the block's copy is no longer needed.
  /// sync_warp between two calls is the caller's.
  template <u32 kTiles, class Done>
  TERSOR_DEVICE void multiply(const u8* block, u32 row, u32 col, const u8* slice, float (&sums)[kTiles][4],
                              Done done) {
    block_head head;
    const own_repairs own = repair(block, row, col, head);
    const block_lane<Weight> lane(block, repairs_, head, lane_);
    part<0>(lane, slice, sums);
    part<1>(lane, slice, sums);
    part<2>(lane, slice, sums);
    part<3>(lane, slice, sums);
    ptx::sync_warp();
    done();
    wipe_repairs(own, lane_, repairs_);
  }

  /// The same by a warpgroup, four warps with a block each and one slice. A warp that is not `active` has
  /// none: `block` is then anything it may read, of a block's size. The products are done when it returns.
  template <u32 kTiles, class Done>
  TERSOR_DEVICE void multiply_as_group(bool active, const u8* block, u32 row, u32 col, const u8* slice,
                                       float (&sums)[kTiles][4], Done done) {
    u32 a[2][4][4];
    block_head head = {};
    own_repairs own;
    if (active) own = repair(block, row, col, head);
    const block_lane<Weight> lane(block, repairs_, head, lane_);
    lane.template decode<0>(a[0][0], a[0][1]);
    lane.template decode<1>(a[0][2], a[0][3]);
    ptx::pin(sums);
    start_products<0>(a[0], slice, sums);
    lane.template decode<2>(a[1][0], a[1][1]);
    lane.template decode<3>(a[1][2], a[1][3]);
    start_products<1>(a[1], slice, sums);
    ptx::sync_warp();
    done();
    if (active) wipe_repairs(own, lane_, repairs_);
    ptx::wgmma_wait<0>();
    ptx::pin(sums);
    ptx::pin(a[0]);
    ptx::pin(a[1]);
  }

 private:
  /// Scatters the repairs of a block.
  TERSOR_DEVICE own_repairs repair(const u8* block, u32 row, u32 col, block_head& head) {
    head = load_head(block + packed_geometry::head_at(Weight::kHalf));
    escape_lists lists;
    lists.near_entries = reinterpret_cast<const u16*>(block + packed_geometry::escapes_at(Weight::kHalf));
    lists.n_near = n_near_;
    const own_repairs own = scatter_near<Weight>(head, lists, lane_, repairs_);
    if (own.many) find_far(row, col, head);
    ptx::sync_warp();
    return own;
  }
  /// Steps 4 kHalf .. 4 kHalf + 3 as a group of wgmma.
  template <u32 kHalf, u32 kTiles>
  TERSOR_DEVICE void start_products(u32 (&a)[4][4], const u8* slice, float (&sums)[kTiles][4]) {
    ptx::pin(a);
    ptx::wgmma_begin();
    const u64 b = ptx::wgmma_operand(slice + kHalf * (8 * kTiles * 128));
#pragma unroll
    for (u32 step = 0; step < 4; ++step) {
      // 32 bytes a step, in units of 16.
      if constexpr (Weight::kHalf) {
        ptx::wgmma_f16(sums, a[step], b + 2 * step);
      } else {
        ptx::wgmma_bf16(sums, a[step], b + 2 * step);
      }
    }
    ptx::wgmma_end();
  }
  TERSOR_DEVICE void find_far(u32 row, u32 col, const block_head& head) {
    const u64 block = static_cast<u64>(row) * col_blocks_ + col;
    escape_lists lists;
    lists.n_near = n_near_;
    lists.places = sections_.inline_places;
    lists.far_entries =
        reinterpret_cast<const u16*>(matrix_ + sections_.blocks_at + block * sections_.block_bytes +
                                     packed_geometry::escapes_at(Weight::kHalf));
    lists.overflow = reinterpret_cast<const u32*>(matrix_ + sections_.overflow_at);
    lists.n_overflow = sections_.n_overflow;
    scatter_far<Weight>(lists, head.counts, head.first_overflow, head.symbols0 & 0xffu, lane_, repairs_);
  }
  /// Steps 2 kPart and 2 kPart + 1.
  template <u32 kPart, u32 kTiles>
  TERSOR_DEVICE void part(const block_lane<Weight>& lane, const u8* slice, float (&sums)[kTiles][4]) {
    u32 even[4], odd[4];
    lane.template decode<kPart>(even, odd);
    const u32 row = lane_ % 8;
    const u8* x = slice + chunk_place<8 * kTiles>(row, 4 * kPart + lane_ / 8);
#pragma unroll
    for (u32 tile = 0; tile < kTiles; ++tile) {
      u32 b[4];
      ptx::ldmatrix_x4(x + 1024 * tile, b);
      mma_of<Weight>(sums[tile], even, b[0], b[1]);
      mma_of<Weight>(sums[tile], odd, b[2], b[3]);
    }
  }

  const packed_sections& sections_;
  u32 col_blocks_;
  const u8* matrix_;
  u32 lane_, n_near_;
  u8* repairs_;
};

}  // namespace tersor::cuda
