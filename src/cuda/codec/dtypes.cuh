// How a lane takes the values of each dtype apart and puts them together (spec/codecs.md section 1).
//
// A row is what a lane holds of a sub-block: eight consecutive values. Symbols travel as `placed` bytes: the
// symbol where it stands in the value's high byte, so that joining is an OR (BF16: rotated right by one, bit
// 7 being the low byte's top bit).
#pragma once

#include "cuda/codec/fields.cuh"

namespace tersor::cuda {

/// The parts of a frame that hold values, as device pointers.
struct frame_planes {
  u8* rest;
  u8* fields[2];
  u8* code;
};

/// Starts the copy of a tile's `kBytes` bytes of a plane to shared memory.
template <u32 kBytes>
TERSOR_DEVICE void copy_tile(u8* stage, const u8* plane, u32 tile, u32 lane) {
  const u8* from = plane + static_cast<u64>(tile) * kBytes + 16 * lane;
#pragma unroll
  for (u32 at = 0; at < kBytes; at += 512) {
    if (kBytes - at >= 512 || 16 * lane < kBytes - at) ptx::copy_16(stage + at + 16 * lane, from + at);
  }
}

/// A lane's eight rest bytes of each sub-block.
TERSOR_DEVICE void load_rest_bytes(uint2 (&bytes)[4], const u8* stage, u32 lane) {
#pragma unroll
  for (u32 s = 0; s < 4; ++s) bytes[s] = reinterpret_cast<const uint2*>(stage)[32 * s + lane];
}

/// Keeps the first `n` (0..8) values of a row and takes the others from `other`.
TERSOR_DEVICE u32 keep_word(u32 x, u32 other, u32 n_bytes) {
  const u32 mask = n_bytes >= 4 ? ptx::kFull : (1u << 8 * n_bytes) - 1;
  return ptx::blend(x, other, mask);
}
TERSOR_DEVICE u32 bytes_left(u32 n_bytes, u32 before) {
  return n_bytes > before ? n_bytes - before : 0;
}

/// Value types of two bytes.
struct two_byte_values {
  static constexpr u32 kValueBytes = 2;
  using row = uint4;
  using value = u16;

  static TERSOR_DEVICE row keep(const row& x, u32 n, u32 other) {
    return {keep_word(x.x, other, 2 * n), keep_word(x.y, other, bytes_left(2 * n, 4)),
            keep_word(x.z, other, bytes_left(2 * n, 8)), keep_word(x.w, other, bytes_left(2 * n, 12))};
  }
  /// The four values of half h, as two words.
  static TERSOR_DEVICE uint2 half(const row& x, u32 h) { return h == 0 ? uint2{x.x, x.y} : uint2{x.z, x.w}; }
  static TERSOR_DEVICE void set_half(row& x, u32 h, u32 low, u32 high) {
    const u32 a = ptx::prmt(low, high, 0x5140), b = ptx::prmt(low, high, 0x7362);
    if (h == 0) {
      x.x = a;
      x.y = b;
    } else {
      x.z = a;
      x.w = b;
    }
  }
  static TERSOR_DEVICE u32 word(const row& x, u32 i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
  }
  static TERSOR_DEVICE u32 repeat(u32 v) { return v | v << 16; }
};

struct one_byte_values {
  static constexpr u32 kValueBytes = 1;
  using row = uint2;
  using value = u8;

  static TERSOR_DEVICE row keep(const row& x, u32 n, u32 other) {
    return {keep_word(x.x, other, n), keep_word(x.y, other, bytes_left(n, 4))};
  }
  static TERSOR_DEVICE u32 half(const row& x, u32 h) { return h == 0 ? x.x : x.y; }
  static TERSOR_DEVICE void set_half(row& x, u32 h, u32 word) {
    if (h == 0) {
      x.x = word;
    } else {
      x.y = word;
    }
  }
  static TERSOR_DEVICE u32 word(const row& x, u32 i) { return i == 0 ? x.x : x.y; }
  static TERSOR_DEVICE u32 repeat(u32 v) { return v * 0x01010101u; }
};

/// Byte offset, in a table of 2^kShift bytes an entry, of the symbol that begins at bit kBit of a word.
template <u32 kShift>
TERSOR_DEVICE u32 entry_offset(u32 word, u32 bit, u32 symbol_mask) {
  return (bit >= kShift ? word >> (bit - kShift) : word << (kShift - bit)) & (symbol_mask << kShift);
}

struct bf16_lane : two_byte_values {
  static constexpr u32 kSymbolBits = 8;
  static constexpr u32 kSymbolAt = 7;

  static constexpr u32 kRestBytes = 1024;
  static TERSOR_DEVICE void copy_rest(u8* stage, const frame_planes& f, u32 tile, u32 lane) {
    copy_tile<1024>(stage, f.rest, tile, lane);
  }
  /// A lane's part of a tile's rest.
  struct rest {
    uint2 bytes[4];
    TERSOR_DEVICE void load(const u8* stage, u32 lane) { load_rest_bytes(bytes, stage, lane); }
  };
  static TERSOR_DEVICE u32 place(u32 symbols) {
    return (symbols >> 1 & 0x7f7f7f7fu) | (symbols << 7 & 0x80808080u);
  }
  /// Puts four placed symbols and their rest together: half h of row s.
  static TERSOR_DEVICE void join(u32 placed, const rest& r, u32 s, u32 h, row& out) {
    const u32 bytes = h == 0 ? r.bytes[s].x : r.bytes[s].y;
    set_half(out, h, ptx::blend(bytes, placed, 0x7f7f7f7fu), ptx::blend(placed, bytes, 0x7f7f7f7fu));
  }
  static TERSOR_DEVICE u32 symbols(const row& x, u32 h) {
    const uint2 v = half(x, h);
    return (ptx::prmt(v.x, v.y, 0x7531) << 1 & 0xfefefefeu) |
           (ptx::prmt(v.x, v.y, 0x6420) >> 7 & 0x01010101u);
  }
  /// Writes the rest of a tile, row by row.
  struct rest_writer {
    TERSOR_DEVICE void put(const frame_planes& f, u32 tile, u32 s, u32 lane, const row& x) {
      uint2 out;
      out.x = ptx::blend(ptx::prmt(x.x, x.y, 0x6420), ptx::prmt(x.x, x.y, 0x7531), 0x7f7f7f7fu);
      out.y = ptx::blend(ptx::prmt(x.z, x.w, 0x6420), ptx::prmt(x.z, x.w, 0x7531), 0x7f7f7f7fu);
      ptx::store(reinterpret_cast<uint2*>(f.rest + static_cast<u64>(tile) * 1024) + 32 * s + lane, out);
    }
    TERSOR_DEVICE void finish(const frame_planes&, u32, u32) {}
  };
};

struct f16_lane : two_byte_values {
  static constexpr u32 kSymbolBits = 5;
  static constexpr u32 kSymbolAt = 10;

  static constexpr u32 kRestBytes = 1024 + 256 + 128;
  static TERSOR_DEVICE void copy_rest(u8* stage, const frame_planes& f, u32 tile, u32 lane) {
    copy_tile<1024>(stage, f.rest, tile, lane);
    copy_tile<256>(stage + 1024, f.fields[0], tile, lane);
    copy_tile<128>(stage + 1280, f.fields[1], tile, lane);
  }
  struct rest {
    uint2 bytes[4];
    uint2 mantissa;
    u32 sign;
    TERSOR_DEVICE void load(const u8* stage, u32 lane) {
      load_rest_bytes(bytes, stage, lane);
      mantissa = reinterpret_cast<const uint2*>(stage + 1024)[lane];
      sign = reinterpret_cast<const u32*>(stage + 1280)[lane];
    }
  };
  static TERSOR_DEVICE u32 place(u32 symbols) { return symbols << 2; }
  static TERSOR_DEVICE void join(u32 placed, const rest& r, u32 s, u32 h, row& out) {
    const u32 bytes = h == 0 ? r.bytes[s].x : r.bytes[s].y;
    const u32 high = placed | spread<2>(lane_plane<2>(r.mantissa).four(s, h)) |
                     spread<1>(lane_plane<1>(r.sign).four(s, h)) << 7;
    set_half(out, h, bytes, high);
  }
  static TERSOR_DEVICE u32 symbols(const row& x, u32 h) {
    const uint2 v = half(x, h);
    return ptx::prmt(v.x, v.y, 0x7531) >> 2 & 0x1f1f1f1fu;
  }
  struct rest_writer {
    lane_plane<2> mantissa;
    lane_plane<1> sign;
    TERSOR_DEVICE void put(const frame_planes& f, u32 tile, u32 s, u32 lane, const row& x) {
      const uint2 out{ptx::prmt(x.x, x.y, 0x6420), ptx::prmt(x.z, x.w, 0x6420)};
      ptx::store(reinterpret_cast<uint2*>(f.rest + static_cast<u64>(tile) * 1024) + 32 * s + lane, out);
#pragma unroll
      for (u32 h = 0; h < 2; ++h) {
        const uint2 v = half(x, h);
        const u32 high = ptx::prmt(v.x, v.y, 0x7531);
        mantissa.put_four(s, h, gather<2>(high & 0x03030303u));
        sign.put_four(s, h, gather<1>(high >> 7 & 0x01010101u));
      }
    }
    TERSOR_DEVICE void finish(const frame_planes& f, u32 tile, u32 lane) {
      store_plane(f.fields[0], tile, lane, mantissa);
      store_plane(f.fields[1], tile, lane, sign);
    }
  };
};

struct e4m3_lane : one_byte_values {
  static constexpr u32 kSymbolBits = 4;
  static constexpr u32 kSymbolAt = 3;

  static constexpr u32 kRestBytes = 512;
  static TERSOR_DEVICE void copy_rest(u8* stage, const frame_planes& f, u32 tile, u32 lane) {
    copy_tile<512>(stage, f.fields[0], tile, lane);
  }
  struct rest {
    uint4 nibbles;
    TERSOR_DEVICE void load(const u8* stage, u32 lane) {
      nibbles = reinterpret_cast<const uint4*>(stage)[lane];
    }
  };
  static TERSOR_DEVICE u32 place(u32 symbols) { return symbols << 3; }
  static TERSOR_DEVICE void join(u32 placed, const rest& r, u32 s, u32 h, row& out) {
    const u32 x = spread<4>(lane_plane<4>(r.nibbles).four(s, h));
    set_half(out, h, placed | (x & 0x07070707u) | (x << 4 & 0x80808080u));
  }
  static TERSOR_DEVICE u32 symbols(const row& x, u32 h) { return half(x, h) >> 3 & 0x0f0f0f0fu; }
  struct rest_writer {
    lane_plane<4> nibbles;
    TERSOR_DEVICE void put(const frame_planes&, u32, u32 s, u32, const row& x) {
#pragma unroll
      for (u32 h = 0; h < 2; ++h) {
        const u32 v = half(x, h);
        nibbles.put_four(s, h, gather<4>((v & 0x07070707u) | (v >> 4 & 0x08080808u)));
      }
    }
    TERSOR_DEVICE void finish(const frame_planes& f, u32 tile, u32 lane) {
      store_plane(f.fields[0], tile, lane, nibbles);
    }
  };
};

struct e5m2_lane : one_byte_values {
  static constexpr u32 kSymbolBits = 5;
  static constexpr u32 kSymbolAt = 2;

  static constexpr u32 kRestBytes = 256 + 128;
  static TERSOR_DEVICE void copy_rest(u8* stage, const frame_planes& f, u32 tile, u32 lane) {
    copy_tile<256>(stage, f.fields[0], tile, lane);
    copy_tile<128>(stage + 256, f.fields[1], tile, lane);
  }
  struct rest {
    uint2 mantissa;
    u32 sign;
    TERSOR_DEVICE void load(const u8* stage, u32 lane) {
      mantissa = reinterpret_cast<const uint2*>(stage)[lane];
      sign = reinterpret_cast<const u32*>(stage + 256)[lane];
    }
  };
  static TERSOR_DEVICE u32 place(u32 symbols) { return symbols << 2; }
  static TERSOR_DEVICE void join(u32 placed, const rest& r, u32 s, u32 h, row& out) {
    set_half(out, h,
             placed | spread<2>(lane_plane<2>(r.mantissa).four(s, h)) |
                 spread<1>(lane_plane<1>(r.sign).four(s, h)) << 7);
  }
  static TERSOR_DEVICE u32 symbols(const row& x, u32 h) { return half(x, h) >> 2 & 0x1f1f1f1fu; }
  struct rest_writer {
    lane_plane<2> mantissa;
    lane_plane<1> sign;
    TERSOR_DEVICE void put(const frame_planes&, u32, u32 s, u32, const row& x) {
#pragma unroll
      for (u32 h = 0; h < 2; ++h) {
        const u32 v = half(x, h);
        mantissa.put_four(s, h, gather<2>(v & 0x03030303u));
        sign.put_four(s, h, gather<1>(v >> 7 & 0x01010101u));
      }
    }
    TERSOR_DEVICE void finish(const frame_planes& f, u32 tile, u32 lane) {
      store_plane(f.fields[0], tile, lane, mantissa);
      store_plane(f.fields[1], tile, lane, sign);
    }
  };
};

/// Byte offset of the table entry of value i of a row.
template <class Lane, u32 kShift>
TERSOR_DEVICE u32 entry_of(const typename Lane::row& x, u32 i) {
  constexpr u32 per_word = 4 / Lane::kValueBytes;
  constexpr u32 mask = (1u << Lane::kSymbolBits) - 1;
  return entry_offset<kShift>(Lane::word(x, i / per_word),
                              8 * Lane::kValueBytes * (i % per_word) + Lane::kSymbolAt, mask);
}

/// The value whose symbol is `symbol` and whose rest is zero.
template <class Lane>
TERSOR_DEVICE u32 bare_value(u32 symbol) {
  return symbol << Lane::kSymbolAt;
}
template <class Lane>
TERSOR_DEVICE u32 symbol_of(u32 value) {
  return value >> Lane::kSymbolAt & ((1u << Lane::kSymbolBits) - 1);
}

}  // namespace tersor::cuda
