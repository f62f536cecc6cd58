// Decodes blocks of the `packed` layout (src/codec/packed_layout.hpp) by a warp, from shared memory into
// registers in fragment order: of each step a lane gets its eight values in four registers, value 2 r + h in
// half h of register r.
//
// Four values at a time: a selector of four nibbles (the codes) picks four symbols out of the eight of the
// codebook with one PRMT; two LOP3 put them beside sign and mantissa, two PRMT interleave the bytes to
// values. Escapes are few: their lanes scatter symbol ^ codebook[0] into a byte per value in shared memory
// ("repairs", zero otherwise), in the order of `rest`, so that every lane reads the repairs of its own values
// and XORs them in.
#pragma once

#include "codec/packed_layout.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

using packed_geometry = codec_detail::packed_geometry;

/// Escapes of a block that are looked for beside it: two a lane.
inline constexpr u32 kNear = 64;
inline constexpr u32 kNearBytes = 2 * kNear;

/// Bytes of a warp's repairs: one a value, and one for each lane that has nothing to scatter.
inline constexpr u32 kRepairBytes = packed_geometry::kValues + 32;
inline constexpr u32 kNowhere = packed_geometry::kValues;

/// Escapes that a lane scattered and has to wipe again.
struct own_repairs {
  u32 first = kNowhere, second = kNowhere;
  bool two = false, many = false;  ///< the same in all lanes
};

/// What differs between the dtypes: how a symbol lies in the byte that PRMT picks, and how four of them
/// become four values.
struct bf16_weight {
  static constexpr bool kHalf = false;
  static constexpr u32 kHighBytes = 8;  ///< of `high` that a lane owns
  struct high_words {
    uint2 w;
  };
  static TERSOR_DEVICE high_words load_high(const u8* block, u32 lane) {
    return {*reinterpret_cast<const uint2*>(block + packed_geometry::kHighAt + 8 * lane)};
  }
  /// Bit 2 of each nibble: bit 2 of the codes of step q.
  template <u32 kStep>
  static TERSOR_DEVICE u32 high_bits(const high_words& high) {
    const u32 w = kStep < 4 ? high.w.x : high.w.y;
    constexpr u32 k = kStep % 4;
    return k == 0 ? w : k == 1 ? w >> 1 : k == 2 ? w << 1 : w << 2;
  }
  /// Exponents rotated right by one: bit 7 of the byte is then bit 7 of the value, bits 6..0 its bits 14..8.
  static TERSOR_DEVICE u32 place_symbols(u32 four) {
    return (four >> 1 & 0x7f7f7f7fu) | (four & 0x01010101u) << 7;
  }
  /// Values 0..3 (kUpper: 4..7) of a step from placed symbols and rest bytes; two registers.
  template <u32 kStep, bool kUpper>
  static TERSOR_DEVICE void assemble(u32 symbols, u32 rest, const high_words&, u32& pair0, u32& pair1) {
    const u32 upper = ptx::blend(rest, symbols, 0x80808080u);
    const u32 lower = ptx::blend(symbols, rest, 0x80808080u);
    pair0 = ptx::prmt(lower, upper, 0x5140u);
    pair1 = ptx::prmt(lower, upper, 0x7362u);
  }
};

struct f16_weight {
  static constexpr bool kHalf = true;
  struct high_words {
    uint4 w[2];
  };
  static TERSOR_DEVICE high_words load_high(const u8* block, u32 lane) {
    const uint4* parts = reinterpret_cast<const uint4*>(block + packed_geometry::kHighAt);
    return {{parts[lane], parts[32 + lane]}};
  }
  template <u32 kStep>
  static TERSOR_DEVICE u32 high_bits(const high_words& high) {
    const uint4& w = high.w[kStep / 4];
    constexpr u32 k = kStep % 4;
    return k == 0 ? w.x : k == 1 ? w.y : k == 2 ? w.z : w.w;
  }
  /// Exponents where they stand in the value's upper byte.
  static TERSOR_DEVICE u32 place_symbols(u32 four) { return four << 2; }
  template <u32 kStep, bool kUpper>
  static TERSOR_DEVICE void assemble(u32 symbols, u32 rest, const high_words& high, u32& pair0, u32& pair1) {
    const u32 nibbles = kUpper ? high_bits<kStep>(high) >> 16 : high_bits<kStep>(high);
    // Bytes 0, 0, 1, 1, then the lower nibble of the even and the upper nibble of the odd ones.
    const u32 doubled = ptx::prmt(nibbles, 0, 0x1100u);
    const u32 spread = ptx::blend(doubled, doubled >> 4, 0x00ff00ffu);
    const u32 upper = symbols | (spread & 0x03030303u) | (spread << 4 & 0x80808080u);
    pair0 = ptx::prmt(rest, upper, 0x5140u);
    pair1 = ptx::prmt(rest, upper, 0x7362u);
  }
};

/// Where the entries of a block's escapes are: the first `n_near` beside the block in shared memory, all of
/// them and the overflow section in global memory.
struct escape_lists {
  const u16* near_entries = nullptr;  ///< shared memory
  u32 n_near = 0;
  const u16* far_entries = nullptr;
  const u32* overflow = nullptr;
  u64 n_overflow = 0;  ///< entries of the section; no index reaches beyond
  u32 places = 0;      ///< inline places of a block
};

struct block_head {
  u32 symbols0, symbols1, counts, first_overflow;
};
TERSOR_DEVICE block_head load_head(const u8* at) {
  const uint4 words = *reinterpret_cast<const uint4*>(at);
  return {words.x, words.y, words.z, words.w};
}

template <class Weight>
TERSOR_DEVICE u8 repair_of(u32 symbol, u32 first_symbol) {
  return static_cast<u8>(Weight::place_symbols(symbol ^ first_symbol));
}
/// Scatters an entry, or nothing; returns where.
template <class Weight>
TERSOR_DEVICE u32 scatter_inline(u32 entry, bool is_entry, u32 first_symbol, u32 lane, u8* repairs) {
  const u32 position = is_entry ? entry & 0x7ffu : kNowhere + lane;
  repairs[position] = repair_of<Weight>(
      codec_detail::escape_symbol(Weight::kHalf, first_symbol, entry >> packed_geometry::kPositionBits),
      first_symbol);
  return position;
}

/// Escapes beyond those near: of a block that is unlike its neighbours.
template <class Weight>
TERSOR_DEVICE_RARE void scatter_far(const escape_lists& lists, u32 counts, u32 first_overflow,
                                    u32 first_symbol, u32 lane, u8* repairs) {
  u32 n_inline = counts & 0xffffu;
  if (n_inline > lists.places) n_inline = lists.places;
  for (u32 i = lists.n_near + lane; i < n_inline; i += 32)
    scatter_inline<Weight>(ptx::load(lists.far_entries + i), true, first_symbol, lane, repairs);
  for (u32 i = lane; i < counts >> 16; i += 32) {
    const u64 index = static_cast<u64>(first_overflow) + i;
    if (index >= lists.n_overflow) break;
    const u32 entry = ptx::load(lists.overflow + index);
    repairs[entry & 0x7ffu] = repair_of<Weight>(entry >> 16 & 0xffu, first_symbol);
  }
}

/// Scatters the repairs that the near entries ask for. Where `many` comes back, scatter_far does the others.
/// sync_warp before they are read.
template <class Weight>
TERSOR_DEVICE own_repairs scatter_near(const block_head& head, const escape_lists& lists, u32 lane,
                                       u8* repairs) {
  own_repairs own;
  const u32 n = head.counts & 0xffffu, first_symbol = head.symbols0 & 0xffu;
  const u32 n_near = n < lists.n_near ? n : lists.n_near;
  // Lanes without an entry read the first: what stands behind the block's places may be on its way.
  const bool first = lane < n_near;
  own.first =
      scatter_inline<Weight>(lists.near_entries[first ? lane : 0], first, first_symbol, lane, repairs);
  own.two = n_near > 32;
  if (own.two) {
    const bool second = lane < n_near - 32;
    own.second = scatter_inline<Weight>(lists.near_entries[second ? 32 + lane : 0], second, first_symbol,
                                        lane, repairs);
  }
  own.many = n > lists.n_near || head.counts >> 16 != 0;
  return own;
}

/// Makes the repairs zero again; sync_warp before (all have read) and after (before the next are scattered).
TERSOR_DEVICE void wipe_repairs(const own_repairs& own, u32 lane, u8* repairs) {
  if (own.many) {
    for (u32 part = 0; part < 4; ++part)
      *reinterpret_cast<uint4*>(repairs + 512 * part + 16 * lane) = make_uint4(0, 0, 0, 0);
    return;
  }
  repairs[own.first] = 0;
  if (own.two) repairs[own.second] = 0;
}

/// One block as a lane sees it.
template <class Weight>
class block_lane {
 public:
  TERSOR_DEVICE block_lane(const u8* block, const u8* repairs, const block_head& head, u32 lane)
      : rest_(block + 16 * lane),
        repairs_(repairs + 16 * lane),
        low_(*reinterpret_cast<const uint4*>(block + packed_geometry::kLowAt + 16 * lane)),
        high_(Weight::load_high(block, lane)),
        symbols0_(Weight::place_symbols(head.symbols0)),
        symbols1_(Weight::place_symbols(head.symbols1)) {}

  /// Steps 2 kPart and 2 kPart + 1.
  template <u32 kPart>
  TERSOR_DEVICE void decode(u32 (&even)[4], u32 (&odd)[4]) const {
    const uint4 rest = *reinterpret_cast<const uint4*>(rest_ + 512 * kPart);
    const uint4 repairs = *reinterpret_cast<const uint4*>(repairs_ + 512 * kPart);
    const u32 low = kPart == 0 ? low_.x : kPart == 1 ? low_.y : kPart == 2 ? low_.z : low_.w;
    step<2 * kPart>(low, rest.x, rest.y, repairs.x, repairs.y, even);
    step<2 * kPart + 1>(low >> 2, rest.z, rest.w, repairs.z, repairs.w, odd);
  }

 private:
  template <u32 kStep>
  TERSOR_DEVICE void step(u32 low, u32 rest0, u32 rest1, u32 repair0, u32 repair1, u32 (&a)[4]) const {
    const u32 codes = (low & 0x33333333u) | (Weight::template high_bits<kStep>(high_) & 0x44444444u);
    const u32 first = ptx::prmt(symbols0_, symbols1_, codes) ^ repair0;
    const u32 second = ptx::prmt(symbols0_, symbols1_, codes >> 16) ^ repair1;
    Weight::template assemble<kStep, false>(first, rest0, high_, a[0], a[1]);
    Weight::template assemble<kStep, true>(second, rest1, high_, a[2], a[3]);
  }

  const u8* rest_;
  const u8* repairs_;
  uint4 low_;
  typename Weight::high_words high_;
  u32 symbols0_, symbols1_;
};

}  // namespace tersor::cuda
