// Tiles of values in the caller's memory: a contiguous tensor, or pages of a pool.
//
// A lane's part of a tile is four rows of eight values: row s begins at value 256 s + 8 lane.
#pragma once

#include "cuda/codec/dtypes.cuh"
#include "cuda/codec/launch.hpp"

namespace tersor::cuda {

inline constexpr u32 kTile = 1024;

TERSOR_DEVICE u32 divide(u32 n, const divider& d) {
  return d.factor == 0 ? n : ptx::mul_high(n, d.factor) >> d.shift;
}

/// Eight values byte by byte, those past `n` zero.
template <class Lane>
TERSOR_DEVICE_RARE typename Lane::row load_bytes(const u8* from, u32 n) {
  u32 words[2 * Lane::kValueBytes];
  for (u32 i = 0; i < 2 * Lane::kValueBytes; ++i) {
    words[i] = 0;
    for (u32 b = 0; b < 4; ++b) {
      if (4 * i + b < n * Lane::kValueBytes)
        words[i] |= static_cast<u32>(ptx::load(from + 4 * i + b)) << (8 * b);
    }
  }
  if constexpr (Lane::kValueBytes == 2) {
    return {words[0], words[1], words[2], words[3]};
  } else {
    return {words[0], words[1]};
  }
}

template <class Lane>
TERSOR_DEVICE_RARE void store_bytes(u8* to, typename Lane::row x, u32 n) {
  for (u32 i = 0; i < n * Lane::kValueBytes; ++i)
    ptx::store(to + i, static_cast<u8>(Lane::word(x, i / 4) >> (8 * (i % 4))));
}

/// Values of row s that exist when the tile has `n` values.
TERSOR_DEVICE u32 row_values(u32 n, u32 s, u32 lane) {
  const u32 first = 256 * s + 8 * lane;
  return n <= first ? 0 : n - first < 8 ? n - first : 8;
}

/// Values of tile `tile` of a frame.
TERSOR_DEVICE u32 tile_values(const frame_shape& s, u32 tile) {
  return tile + 1 == s.n_tiles ? s.last_values : kTile;
}

template <class Lane>
class tensor_tiles {
 public:
  using row = typename Lane::row;
  TERSOR_DEVICE tensor_tiles(u8* base, const frame_shape& shape)
      : base_(base), shape_(shape), aligned_(reinterpret_cast<std::uintptr_t>(base) % 16 == 0) {}

  /// What fetch and store want to know of a tile, and what is best asked for before it is needed: for pages
  /// the page's id.
  TERSOR_DEVICE u32 id_of(u32) const { return 0; }
  TERSOR_DEVICE void copy_id(u32*, u32, u32) const {}

  /// Starts the copy of a tile to `stage` (ptx::end_copies is the caller's); values past the end are zero.
  /// False if the values do not exist (a page outside the pool).
  TERSOR_DEVICE bool fetch(u8* stage, u32 tile, u32 lane, u32) const {
    const u32 n = tile_values(shape_, tile);
    if (aligned_ && n == kTile) {
      copy_tile<kTile * Lane::kValueBytes>(stage, base_, tile, lane);
    } else {
#pragma unroll 1
      for (u32 s = 0; s < 4; ++s) {
        reinterpret_cast<row*>(stage)[32 * s + lane] =
            load_bytes<Lane>(base_ + row_at(tile, s, lane), row_values(n, s, lane));
      }
    }
    return true;
  }
  TERSOR_DEVICE bool store(u32 tile, u32 lane, const row (&x)[4], u32) const {
    const u32 n = tile_values(shape_, tile);
    if (aligned_ && n == kTile) {
      row* to = reinterpret_cast<row*>(base_ + static_cast<u64>(tile) * kTile * Lane::kValueBytes) + lane;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) ptx::store(to + 32 * s, x[s]);
    } else {
#pragma unroll
      for (u32 s = 0; s < 4; ++s)
        store_bytes<Lane>(base_ + row_at(tile, s, lane), x[s], row_values(n, s, lane));
    }
    return true;
  }

 private:
  static TERSOR_DEVICE u64 row_at(u32 tile, u32 s, u32 lane) {
    return (static_cast<u64>(tile) * kTile + 256 * s + 8 * lane) * Lane::kValueBytes;
  }
  u8* base_;
  const frame_shape& shape_;
  bool aligned_;
};

/// Pages `ids` of a pool, one after the other.
template <class Lane>
class page_tiles {
 public:
  using row = typename Lane::row;
  TERSOR_DEVICE page_tiles(u8* pool, const std::int32_t* ids, const page_geometry& g,
                           const frame_shape& shape)
      : pool_(pool), ids_(ids), g_(g), shape_(shape) {}

  TERSOR_DEVICE u32 id_of(u32 tile) const {
    return g_.tile_in_page ? static_cast<u32>(ptx::load(ids_ + page_of_tile(tile))) : 0;
  }
  TERSOR_DEVICE void copy_id(u32* to, u32 tile, u32 lane) const {
    if (g_.tile_in_page && lane == 0) ptx::copy_4(to, ids_ + page_of_tile(tile));
  }
  TERSOR_DEVICE bool fetch(u8* stage, u32 tile, u32 lane, u32 id) const {
    if (g_.whole_tiles) {
      const u8* from = tile_start(tile, id);
      if (from != nullptr) {
        copy_tile<kTile * Lane::kValueBytes>(stage, from, 0, lane);
        return true;
      }
    }
    const u32 n = tile_values(shape_, tile);
    bool good = true;
    if (g_.in_eights) {
#pragma unroll
      for (u32 s = 0; s < 4; ++s)
        good = fetch_eight(reinterpret_cast<row*>(stage) + 32 * s + lane, tile, s, lane, n, id) && good;
    } else {
      const page_tiles copy = *this;  // so that this one stays in registers
#pragma unroll 1
      for (u32 s = 0; s < 4; ++s) {
        reinterpret_cast<row*>(stage)[32 * s + lane] = copy.load_apart(
            static_cast<u64>(tile) * kTile + 256 * s + 8 * lane, row_values(n, s, lane), good);
      }
    }
    return good;
  }
  TERSOR_DEVICE bool store(u32 tile, u32 lane, const row (&x)[4], u32 id) const {
    if (g_.whole_tiles) {
      u8* to = tile_start(tile, id);
      if (to == nullptr) return false;
#pragma unroll
      for (u32 s = 0; s < 4; ++s) ptx::store(reinterpret_cast<row*>(to) + 32 * s + lane, x[s]);
      return true;
    }
    bool good = true;
#pragma unroll
    for (u32 s = 0; s < 4; ++s) good = store_any(tile, s, lane, x[s], id) && good;
    return good;
  }
  /// Value v of a tile; zero if its page is outside the pool.
  TERSOR_DEVICE u32 load_value(u32 tile, u32 v) const {
    const u8* from = value_at(static_cast<u64>(tile) * kTile + v);
    return from == nullptr ? 0 : Lane::word(load_bytes<Lane>(from, 1), 0);
  }
  /// False if the value's page is outside the pool.
  TERSOR_DEVICE bool store_value(u32 tile, u32 v, u32 value) const {
    u8* to = value_at(static_cast<u64>(tile) * kTile + v);
    for (u32 b = 0; to != nullptr && b < Lane::kValueBytes; ++b)
      ptx::store(to + b, static_cast<u8>(value >> (8 * b)));
    return to != nullptr;
  }

 private:
  TERSOR_DEVICE u32 page_of_tile(u32 tile) const {
    return divide(g_.in_eights ? tile * (kTile / 8) : tile * kTile, g_.by_page);
  }
  /// Null if the id is outside the pool.
  TERSOR_DEVICE u8* page_start(u32 id) const {
    return id < g_.n_blocks ? pool_ + id * g_.page_stride : nullptr;
  }
  /// Where a whole tile begins; the tile's offset in its page is a multiple of 1,024 values.
  TERSOR_DEVICE u8* tile_start(u32 tile, u32 id) const {
    const u32 eight = tile * (kTile / 8), page = divide(eight, g_.by_page);
    u8* start = page_start(id);
    return start == nullptr
               ? start
               : start + static_cast<u64>(eight - page * g_.by_page.divisor) * (8 * Lane::kValueBytes);
  }
  /// Where unit n begins; a unit is eight values or one (page_geometry::in_eights). `id`: its tile's, if that
  /// is known.
  TERSOR_DEVICE u8* unit_at(u32 n, u32 unit_values, bool known, u32 id) const {
    const u32 page = divide(n, g_.by_page), in_page = n - page * g_.by_page.divisor;
    u8* start = page_start(known ? id : static_cast<u32>(ptx::load(ids_ + page)));
    if (start == nullptr) return start;
    const u32 line = divide(in_page, g_.by_dim), i = in_page - line * g_.by_dim.divisor;
    const u32 token = divide(line, g_.by_heads), head = line - token * g_.by_heads.divisor;
    return start + token * g_.token_stride + head * g_.head_stride + i * (g_.value_stride * unit_values);
  }
  TERSOR_DEVICE_RARE u8* value_at(u64 v) const {
    if (!g_.in_eights) return unit_at(static_cast<u32>(v), 1, false, 0);
    u8* start = unit_at(static_cast<u32>(v / 8), 8, false, 0);
    return start == nullptr ? start : start + v % 8 * Lane::kValueBytes;
  }
  /// A lane's eight values of row s of a tile of n values.
  TERSOR_DEVICE bool fetch_eight(row* to, u32 tile, u32 s, u32 lane, u32 n, u32 id) const {
    const u8* from = row_values(n, s, lane) == 0
                         ? nullptr
                         : unit_at(tile * (kTile / 8) + 32 * s + lane, 8, g_.tile_in_page, id);
    if (from == nullptr) {
      *to = row{};
      return row_values(n, s, lane) == 0;
    }
    if constexpr (sizeof(row) == 16) {
      ptx::copy_16(to, from);
    } else {
      ptx::copy_8(to, from);
    }
    return true;
  }
  TERSOR_DEVICE bool store_any(u32 tile, u32 s, u32 lane, const row& x, u32 id) const {
    const u32 n = row_values(tile_values(shape_, tile), s, lane);
    if (!g_.in_eights) {
      const page_tiles copy = *this;
      return copy.store_apart(static_cast<u64>(tile) * kTile + 256 * s + 8 * lane, x, n);
    }
    if (n == 0) return true;
    u8* to = unit_at(tile * (kTile / 8) + 32 * s + lane, 8, g_.tile_in_page, id);
    if (to != nullptr) ptx::store(reinterpret_cast<row*>(to), x);
    return to != nullptr;
  }
  /// Value by value, for strides and sizes that keep eight values from lying together.
  TERSOR_DEVICE_RARE row load_apart(u64 first, u32 n, bool& good) const {
    row out{};
    for (u32 i = 0; i < n; ++i) {
      const u8* from = value_at(first + i);
      good = good && from != nullptr;
      const u32 value = from == nullptr ? 0 : Lane::word(load_bytes<Lane>(from, 1), 0);
      out = Lane::keep(out, i, Lane::repeat(value));
    }
    return Lane::keep(out, n, 0);
  }
  TERSOR_DEVICE_RARE bool store_apart(u64 first, row x, u32 n) const {
    bool good = true;
    for (u32 i = 0; i < n; ++i) {
      constexpr u32 per_word = 4 / Lane::kValueBytes;
      const u32 value = Lane::word(x, i / per_word) >> (8 * Lane::kValueBytes * (i % per_word));
      const u64 v = first + i;
      good = store_value(static_cast<u32>(v / kTile), static_cast<u32>(v % kTile), value) && good;
    }
    return good;
  }

  u8* pool_;
  const std::int32_t* ids_;
  const page_geometry& g_;
  const frame_shape& shape_;
};

/// One tile as an encoder sees it, in shared memory: values that do not exist are `pad` (code 0, rest 0),
/// where the stage holds zeros.
template <class Lane>
struct staged_tile {
  const u8* stage;
  u32 n_values;
  u32 pad;

  TERSOR_DEVICE typename Lane::row raw_row(u32 s, u32 lane) const {
    return reinterpret_cast<const typename Lane::row*>(stage)[32 * s + lane];
  }
  TERSOR_DEVICE typename Lane::row row(u32 s, u32 lane) const {
    const auto x = raw_row(s, lane);
    return n_values == kTile ? x : Lane::keep(x, row_values(n_values, s, lane), Lane::repeat(pad));
  }
  TERSOR_DEVICE u32 value(u32 v) const {
    return v < n_values ? reinterpret_cast<const typename Lane::value*>(stage)[v] : pad;
  }
};

}  // namespace tersor::cuda
