// One block of a matrix as the warp that packs it sees it: its values in shared memory in the order of their
// positions, its codebook, and its escapes in that order.
#pragma once

#include "cuda/codec/digest.cuh"
#include "cuda/codec/warp.cuh"
#include "cuda/gemm/matrix_access.cuh"
#include "cuda/gemm/pack_fields.cuh"

namespace tersor::cuda {

struct pack_memory {
  static constexpr u32 kPartValues = 512;
  /// Values from one part to the next: columns of a row, which go to different parts, meet in no bank.
  static constexpr u32 kPartPitch = kPartValues + 16;
  alignas(16) u16 values[4 * kPartPitch];
  u32 counts[256];
  u8 codes[256];
};
inline constexpr u8 kEscapeCode = 8;

struct block_book {
  u32 symbols0, symbols1;
  [[nodiscard]] TERSOR_DEVICE u32 first() const { return symbols0 & 0xffu; }
  [[nodiscard]] TERSOR_DEVICE u32 second() const { return symbols0 >> 8 & 0xffu; }
  [[nodiscard]] TERSOR_DEVICE u32 symbol(u32 code) const {
    return (code < 4 ? symbols0 : symbols1) >> (8 * (code % 4)) & 0xffu;
  }
};

/// Running numbers of escapes: all of them, and those that an inline entry can name.
struct escape_counts {
  u32 all = 0, named = 0;
};

template <class Fields>
class pack_block {
 public:
  static constexpr u32 kParts = 4;
  TERSOR_DEVICE pack_block(const matrix_blocks& m, const u16* src, const block_place& at, pack_memory& sh,
                           u32 lane)
      : m_(m), src_(src), at_(at), extent_(extent_of(m, at)), sh_(sh), lane_(lane) {}

  /// Brings the values to shared memory; zero where the matrix has none.
  TERSOR_DEVICE void load() {
    constexpr u32 kBatch = 4, kUnits = packed_geometry::kValues / 8 / 32;
#pragma unroll 1
    for (u32 i = 0; i < kUnits; i += kBatch) {
      uint4 batch[kBatch];
#pragma unroll
      for (u32 k = 0; k < kBatch; ++k)
        batch[k] = load_eight(eight_of<packed_geometry::kCols>(m_.column_major, 32 * (i + k) + lane_));
#pragma unroll
      for (u32 k = 0; k < kBatch; ++k)
        spread(eight_of<packed_geometry::kCols>(m_.column_major, 32 * (i + k) + lane_), batch[k]);
    }
    ptx::sync_warp();
  }

  /// The 8 most frequent symbols, the smaller first where two are as frequent.
  [[nodiscard]] TERSOR_DEVICE block_book make_book() {
    constexpr u32 kMine = Fields::kSymbolCount / 32;
    for (u32 k = 0; k < kMine; ++k) sh_.counts[32 * k + lane_] = 0;
    ptx::sync_warp();
    count();
    ptx::sync_warp();
    // A key of zero is a symbol that has been taken.
    u32 keys[kMine];
#pragma unroll
    for (u32 k = 0; k < kMine; ++k)
      keys[k] = (sh_.counts[32 * k + lane_] << 8 | (255 - (32 * k + lane_))) + 1;
    block_book book{0, 0};
#pragma unroll
    for (u32 code = 0; code < packed_geometry::kSymbols; ++code) {
      u32 most = 0;
#pragma unroll
      for (u32 k = 0; k < kMine; ++k) most = keys[k] > most ? keys[k] : most;
      most = ptx::reduce_max(most);
#pragma unroll
      for (u32 k = 0; k < kMine; ++k) keys[k] = keys[k] == most ? 0 : keys[k];
      const u32 symbol = 255 - ((most - 1) & 0xffu);
      (code < 4 ? book.symbols0 : book.symbols1) |= symbol << (8 * (code % 4));
    }
    return book;
  }

  /// Prepares the codes of all symbols.
  TERSOR_DEVICE void use_book(const block_book& book) {
    book_ = book;
    for (u32 k = lane_; k < Fields::kSymbolCount; k += 32) sh_.codes[k] = kEscapeCode;
    ptx::sync_warp();
    if (lane_ < packed_geometry::kSymbols)
      sh_.codes[book.symbol(lane_) & (Fields::kSymbolCount - 1)] = static_cast<u8>(lane_);
    ptx::sync_warp();
  }

  /// The lane's eight values of steps 2 kPart and 2 kPart + 1; padding as it decodes.
  template <u32 kPart>
  TERSOR_DEVICE void values_of(uint4& even, uint4& odd) const {
    const uint4* mine =
        reinterpret_cast<const uint4*>(sh_.values + kPart * pack_memory::kPartPitch + 16 * lane_);
    even = mine[0];
    odd = mine[1];
    if (is_whole()) return;
    const u32 padding = Fields::padding(book_.first(), book_.second());
    even = pad(even, 2 * kPart, padding);
    odd = pad(odd, 2 * kPart + 1, padding);
  }

  /// Calls `put_inline(number, entry)` and `put_overflow(number, entry)` for the lane's escapes of a part,
  /// both numbered in the block; adds the part's escapes to `counts`. All lanes, part after part.
  template <class PutInline, class PutOverflow>
  TERSOR_DEVICE void place_escapes(u32 part, u32 escaped, u32 places, escape_counts& counts,
                                   const PutInline& put_inline, const PutOverflow& put_overflow) const {
    u32 named = 0;
    for (u32 left = escaped; left != 0; left &= left - 1) {
      const u32 k = ptx::lowest_bit(left);
      named |= index_of(symbol_at(part, k)) != codec_detail::kNoEscapeIndex ? 1u << k : 0;
    }
    const u32 mine = ptx::popc(escaped) | ptx::popc(named) << 16;
    const u32 upto = inclusive_scan(mine);
    u32 all_before = counts.all + ((upto - mine) & 0xffffu),
        named_before = counts.named + ((upto - mine) >> 16);
    const u32 total = ptx::shfl(upto, 31);
    counts.all += total & 0xffffu;
    counts.named += total >> 16;
    for (u32 left = escaped; left != 0; left &= left - 1) {
      const u32 k = ptx::lowest_bit(left), symbol = symbol_at(part, k);
      const u32 position = pack_memory::kPartValues * part + 16 * lane_ + k;
      const bool can = (named >> k & 1) != 0;
      if (can && named_before < places) {
        put_inline(named_before, position | index_of(symbol) << packed_geometry::kPositionBits);
      } else {
        put_overflow(all_before - (named_before < places ? named_before : places), position | symbol << 16);
      }
      ++all_before;
      named_before += can ? 1 : 0;
    }
  }

  /// Which of the 16 values are escapes.
  [[nodiscard]] TERSOR_DEVICE u32 escapes_of(const uint4& even, const uint4& odd) const {
    u32 escaped = 0;
#pragma unroll
    for (u32 k = 0; k < 16; ++k) escaped |= (code_of(value_of(k < 8 ? even : odd, k % 8)) >> 3) << k;
    return escaped;
  }
  [[nodiscard]] TERSOR_DEVICE u32 code_of(u32 value) const {
    return sh_.codes[Fields::symbol(value)];
  }
  [[nodiscard]] static TERSOR_DEVICE u32 value_of(const uint4& eight, u32 j) {
    const u32 pair = j < 2 ? eight.x : j < 4 ? eight.y : j < 6 ? eight.z : eight.w;
    return j % 2 == 0 ? pair & 0xffffu : pair >> 16;
  }

 private:
  [[nodiscard]] TERSOR_DEVICE u32 index_of(u32 symbol) const {
    return codec_detail::escape_index(Fields::kHalf, book_.first(), symbol);
  }
  [[nodiscard]] TERSOR_DEVICE bool is_whole() const {
    return extent_.rows == packed_geometry::kRows && extent_.cols == packed_geometry::kCols;
  }
  [[nodiscard]] TERSOR_DEVICE bool exists(u32 step, u32 j) const {
    const codec_detail::packed_place p{lane_, step, j};
    return codec_detail::row_of(p) < extent_.rows && codec_detail::col_of(p) < extent_.cols;
  }
  [[nodiscard]] TERSOR_DEVICE u32 symbol_at(u32 part, u32 k) const {
    return Fields::symbol(sh_.values[part * pack_memory::kPartPitch + 16 * lane_ + k]);
  }

  [[nodiscard]] TERSOR_DEVICE uint4 load_eight(const eight_values& v) const {
    const u32 live = live_values(m_.column_major, v, extent_);
    if (live == 0) return {0, 0, 0, 0};
    const u16* from = src_ + value_index(m_, at_, v.row, v.col);
    if (live == 8 && m_.in_eights) return ptx::load(reinterpret_cast<const uint4*>(from));
    u32 pairs[4] = {};
#pragma unroll
    for (u32 k = 0; k < 8; ++k)
      pairs[k / 2] |= (k < live ? static_cast<u32>(ptx::load(from + k)) : 0) << (16 * (k % 2));
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }

  [[nodiscard]] static TERSOR_DEVICE u32 slot_of(u32 row, u32 col) {
    const u32 position = codec_detail::position_of(codec_detail::place_in_block(row, col));
    return position +
           position / pack_memory::kPartValues * (pack_memory::kPartPitch - pack_memory::kPartValues);
  }
  /// Two neighbours in a row are neighbours in the order of positions.
  TERSOR_DEVICE void spread(const eight_values& v, const uint4& eight) {
#pragma unroll
    for (u32 k = 0; k < 8; k += 2) {
      const u32 first = value_of(eight, k), second = value_of(eight, k + 1);
      if (m_.column_major) {
        sh_.values[slot_of(v.row + k, v.col)] = static_cast<u16>(first);
        sh_.values[slot_of(v.row + k + 1, v.col)] = static_cast<u16>(second);
      } else {
        *reinterpret_cast<u32*>(sh_.values + slot_of(v.row, v.col + k)) = first | second << 16;
      }
    }
  }

  TERSOR_DEVICE void count() {
#pragma unroll 1
    for (u32 step = 0; step < packed_geometry::kSteps; ++step) {
      const uint4 eight = *reinterpret_cast<const uint4*>(sh_.values + step / 2 * pack_memory::kPartPitch +
                                                          16 * lane_ + 8 * (step % 2));
#pragma unroll
      for (u32 j = 0; j < 8; ++j) {
        if (is_whole() || exists(step, j))
          ptx::shared_add(sh_.counts + Fields::symbol(value_of(eight, j)), 1);
      }
    }
  }

  [[nodiscard]] TERSOR_DEVICE uint4 pad(const uint4& eight, u32 step, u32 padding) const {
    u32 pairs[4];
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
      const u32 first = exists(step, 2 * k) ? value_of(eight, 2 * k) : padding;
      const u32 second = exists(step, 2 * k + 1) ? value_of(eight, 2 * k + 1) : padding;
      pairs[k] = first | second << 16;
    }
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }

  const matrix_blocks& m_;
  const u16* src_;
  block_place at_;
  block_extent extent_;
  pack_memory& sh_;
  u32 lane_;
  block_book book_{0, 0};
};

}  // namespace tersor::cuda
