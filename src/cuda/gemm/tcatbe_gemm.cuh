// The GEMM on `tcatbe` matrices as ZipServ describes it: 64 x 64 tiles come to shared memory by cp.async,
// several stages ahead; every warp turns the bitmaps and streams of its strip of 16 rows into A fragments by
// counting bits, and multiplies them by mma.sync.
//
// K is split by sharing out the tiles of the whole matrix evenly among the CTAs. Sums of row tiles that CTAs
// share are added up by a second kernel in a fixed order.
#pragma once

#include "cuda/gemm/tcatbe_decode.cuh"
#include "cuda/ptx/mma.cuh"

namespace tersor::cuda {

template <u32 kTileTokens>
struct tcatbe_gemm_sizes {
  static constexpr u32 kTokens = kTileTokens;
  static constexpr u32 kWarps = tcatbe_geometry::kStrips, kThreads = 32 * kWarps;
  static constexpr u32 kStages = kTcatbeStages;
  static constexpr u32 kTokenBytes = kTokens * kTcatbeTokenPitch;
  static constexpr u32 kTokensAt = kStages * kTcatbeTileBytes;
  static constexpr u32 kPlacesAt = kTokensAt + kStages * kTokenBytes;
  static constexpr u32 kCountsAt = kPlacesAt + kWarps * 32 * 4;
  static constexpr u32 kEnd = kCountsAt + 8 * kStages, kMostRead = kTokensAt + kTcatbeOverrun;
  static constexpr u32 kBytes = kEnd < kMostRead ? kMostRead : kEnd;
};

/// The tiles of the matrix, shared out: CTA c has [first(c), first(c + 1)).
class tcatbe_shares {
 public:
  TERSOR_DEVICE tcatbe_shares(u32 n_tiles, u32 ctas) : each_(n_tiles / ctas), more_(n_tiles % ctas) {}
  [[nodiscard]] TERSOR_DEVICE u32 first(u32 cta) const { return cta * each_ + (cta < more_ ? cta : more_); }
  [[nodiscard]] TERSOR_DEVICE u32 owner(u32 tile) const {
    const u32 in_larger = more_ * (each_ + 1);
    return tile < in_larger ? tile / (each_ + 1) : more_ + (tile - in_larger) / each_;
  }

 private:
  u32 each_, more_;
};

/// Where CTA `cta` leaves its sums of a row tile, [token][64 rows]: place 0 for its first row tile, 1 for its
/// last.
TERSOR_DEVICE float* partial_place(const tcatbe_gemm_launch& l, u32 cta, u32 place) {
  return l.partials + (2 * static_cast<u64>(cta) + place) * (tcatbe_geometry::kSide * l.n_tile);
}

TERSOR_DEVICE void store_tcatbe_output(const gemm_operands& op, u32 row, u32 token, float value) {
  if (row >= op.rows || token >= op.n_tokens) return;
  u16* y = reinterpret_cast<u16*>(op.y) + token * op.ldy + row;
  if (op.bias != nullptr) value += ptx::from_bf16(ptx::load(reinterpret_cast<const u16*>(op.bias) + row));
  if (op.accumulate != 0) value += ptx::from_bf16(ptx::load(y));
  ptx::store(y, ptx::to_bf16(value));
}

/// Columns [first_col, + 64) of an X whose rows are not aligned; what X does not have is zero.
template <class Sizes>
TERSOR_DEVICE_RARE void copy_tokens(const gemm_operands& op, u32 first_col, u32 lane, u8* to) {
  const u16* x = reinterpret_cast<const u16*>(op.x);
  for (u32 i = lane; i < Sizes::kTokens * tcatbe_geometry::kSide; i += 32) {
    const u32 token = i / tcatbe_geometry::kSide, col = first_col + i % tcatbe_geometry::kSide;
    const bool there = token < op.n_tokens && col < op.cols;
    reinterpret_cast<u16*>(to + token * kTcatbeTokenPitch)[i % tcatbe_geometry::kSide] =
        there ? ptx::load(x + token * op.ldx + col) : u16{0};
  }
}

template <class Sizes>
class tcatbe_gemm {
 public:
  TERSOR_DEVICE tcatbe_gemm(const tcatbe_gemm_launch& launch, u8* shared)
      : l_(launch),
        shared_(shared),
        warp_(ptx::thread_index() / 32),
        lane_(ptx::thread_index() % 32, launch.matrix.first_symbol) {
    const tcatbe_shares shares(l_.matrix.n_tiles, l_.ctas);
    first_ = shares.first(ptx::cta_index());
    end_ = shares.first(ptx::cta_index() + 1);
  }

  TERSOR_DEVICE void run() {
    u32 col_tile = first_ % l_.matrix.col_tiles, row_tile = first_ / l_.matrix.col_tiles, stage = 0;
    record_ = record_of(first_ + warp_);
    for (u32 s = 0; s + 1 < kStages; ++s) {
      start(first_ + s, (col_tile + s) % l_.matrix.col_tiles, s);
      ptx::end_copies();
    }
    u32 next_col_tile = (col_tile + kStages - 1) % l_.matrix.col_tiles;
    clear();
    for (u32 tile = first_; tile < end_; ++tile) {
      ptx::wait_copies<kStages - 2>();
      ptx::barrier();
      start(tile + kStages - 1, next_col_tile, stage == 0 ? kStages - 1 : stage - 1);
      ptx::end_copies();
      next_col_tile = next_col_tile + 1 == l_.matrix.col_tiles ? 0 : next_col_tile + 1;
      multiply(stage);
      stage = stage + 1 == kStages ? 0 : stage + 1;
      if (++col_tile < l_.matrix.col_tiles && tile + 1 < end_) continue;
      finish(row_tile, col_tile == l_.matrix.col_tiles);
      ++row_tile;
      col_tile = 0;
    }
  }

 private:
  static constexpr u32 kStages = Sizes::kStages, kTiles = Sizes::kTokens / 8;

  [[nodiscard]] TERSOR_DEVICE tcatbe_record record_of(u32 tile) const {
    return tile < end_ ? load_record(l_.op.weights, l_.matrix, tile) : tcatbe_record{};
  }
  [[nodiscard]] TERSOR_DEVICE u8* tile_at(u32 stage) const { return shared_ + stage * kTcatbeTileBytes; }
  [[nodiscard]] TERSOR_DEVICE u8* tokens_at(u32 stage) const {
    return shared_ + Sizes::kTokensAt + stage * Sizes::kTokenBytes;
  }

  [[nodiscard]] TERSOR_DEVICE u64* counts_at(u32 stage) const {
    return reinterpret_cast<u64*>(shared_ + Sizes::kCountsAt) + stage;
  }

  /// Warps take turns: what it takes to start a tile's copies is so paid by one of them.
  TERSOR_DEVICE void start(u32 tile, u32 col_tile, u32 stage) {
    if (tile >= end_ || (tile - first_) % Sizes::kWarps != warp_) return;
    start_tile<32>(l_.op.weights, l_.matrix, tile, record_, lane_.lane, tile_at(stage));
    if (lane_.lane == 0) *counts_at(stage) = record_.counts;
    record_ = record_of(tile + Sizes::kWarps);
    const u32 first_col = col_tile * tcatbe_geometry::kSide;
    if (l_.op.x_aligned != 0) {
      start_tokens(first_col, tokens_at(stage));
    } else {
      copy_tokens<Sizes>(l_.op, first_col, lane_.lane, tokens_at(stage));
    }
  }

  /// The same for an X with aligned rows, in the background.
  TERSOR_DEVICE void start_tokens(u32 first_col, u8* to) {
    const u32 chunk = lane_.lane % 8, col = first_col + 8 * chunk;
    const u32 left = col < l_.op.cols ? l_.op.cols - col : 0;
    const u32 n_bytes = left < 8 ? 2 * left : 16;
    const u16* x = reinterpret_cast<const u16*>(l_.op.x);
    to += lane_.lane / 8 * kTcatbeTokenPitch + 16 * chunk;
#pragma unroll 4
    for (u32 token = lane_.lane / 8; token < Sizes::kTokens; token += 4) {
      const bool there = token < l_.op.n_tokens && left != 0;
      const u16* from = there ? x + token * l_.op.ldx + col : x;
      ptx::copy_16_or_zero(to, from, there ? n_bytes : 0);
      to += 4 * kTcatbeTokenPitch;
    }
  }

  TERSOR_DEVICE void multiply(u32 stage) {
    u32* places = reinterpret_cast<u32*>(shared_ + Sizes::kPlacesAt) + 32 * warp_;
    const tcatbe_strip strip(lane_, tile_at(stage), *counts_at(stage), warp_, places);
    const u8* tokens = tokens_at(stage);
    steps<0>(strip, tokens);
    steps<2>(strip, tokens);
  }
  /// Steps q and q + 1.
  template <u32 q>
  TERSOR_DEVICE void steps(const tcatbe_strip& strip, const u8* tokens) {
    u32 a[4], next[4];
    if constexpr (kTiles == 1) {
      u32 b[4];
      ptx::ldmatrix_x4(tokens + lane_.lane % 8 * kTcatbeTokenPitch + 16 * (lane_.lane / 8) + 32 * q, b);
      strip.template decode<q>(a);
      strip.template decode<q + 1>(next);
      ptx::mma_bf16(sums_[0], a, b[0], b[1]);
      ptx::mma_bf16(sums_[0], next, b[2], b[3]);
    } else {
      strip.template decode<q>(a);
      step<q>(a, tokens);
      strip.template decode<q + 1>(next);
      step<q + 1>(next, tokens);
    }
  }
  template <u32 q>
  TERSOR_DEVICE void step(const u32 (&a)[4], const u8* tokens) {
    const u8* mine = tokens + (lane_.lane / 16 * 8 + lane_.lane % 8) * kTcatbeTokenPitch +
                     lane_.lane / 8 % 2 * 16 + 32 * q;
#pragma unroll
    for (u32 i = 0; i < kTiles; i += 2) {
      u32 b[4];
      ptx::ldmatrix_x4(mine + 8 * i * kTcatbeTokenPitch, b);
      ptx::mma_bf16(sums_[i], a, b[0], b[1]);
      ptx::mma_bf16(sums_[i + 1], a, b[2], b[3]);
    }
  }

  TERSOR_DEVICE void clear() {
#pragma unroll
    for (u32 i = 0; i < kTiles; ++i) {
#pragma unroll
      for (u32 k = 0; k < 4; ++k) sums_[i][k] = 0;
    }
  }

  /// Hands out the sums of a row tile, which are all of it if the CTA began and ended it.
  TERSOR_DEVICE void finish(u32 row_tile, bool ended) {
    const bool began = row_tile * l_.matrix.col_tiles >= first_;
    const bool is_first = row_tile == first_ / l_.matrix.col_tiles;
    float* partial = partial_place(l_, ptx::cta_index(), is_first ? 0 : 1);
#pragma unroll
    for (u32 i = 0; i < kTiles; ++i) {
#pragma unroll
      for (u32 k = 0; k < 4; ++k) {
        const u32 row = 16 * warp_ + lane_.lane / 4 + k / 2 * 8, token = 8 * i + lane_.lane % 4 * 2 + k % 2;
        if (began && ended) {
          store_tcatbe_output(l_.op, row_tile * tcatbe_geometry::kSide + row, token, sums_[i][k]);
        } else {
          ptx::store(partial + token * tcatbe_geometry::kSide + row, sums_[i][k]);
        }
      }
    }
    clear();
  }

  const tcatbe_gemm_launch& l_;
  u8* shared_;
  u32 warp_, first_, end_;
  tcatbe_record record_;  ///< of the warp's next tile to copy
  tcatbe_lane lane_;
  float sums_[kTiles][4];
};

template <class Sizes>
TERSOR_DEVICE void tcatbe_gemm_cta(const tcatbe_gemm_launch& launch, u8* shared) {
  tcatbe_gemm<Sizes>(launch, shared).run();
}

/// One CTA for every row tile: adds up what CTAs that share it have left.
inline constexpr u32 kTcatbeSumThreads = 128;
TERSOR_DEVICE void tcatbe_sum_cta(const tcatbe_gemm_launch& l) {
  const u32 row_tile = ptx::cta_index(), cols = l.matrix.col_tiles, n = tcatbe_geometry::kSide * l.n_tile;
  const tcatbe_shares shares(l.matrix.n_tiles, l.ctas);
  const u32 first = shares.owner(row_tile * cols), last = shares.owner(row_tile * cols + cols - 1);
  if (first == last) return;
  // All but the first CTA begin with this row tile.
  const u32 place = shares.first(first) / cols == row_tile ? 0 : 1;
  for (u32 i = ptx::thread_index(); i < n; i += kTcatbeSumThreads) {
    float sum = ptx::load(partial_place(l, first, place) + i);
    for (u32 cta = first + 1; cta <= last; ++cta) sum += ptx::load(partial_place(l, cta, 0) + i);
    store_tcatbe_output(l.op, row_tile * tcatbe_geometry::kSide + i % tcatbe_geometry::kSide,
                        i / tcatbe_geometry::kSide, sum);
  }
}

}  // namespace tersor::cuda
