#include "codec/packed_order.hpp"

#include <array>
#include <cstring>

#include "core/bytes.hpp"

namespace tersor::codec_detail {
namespace {

/// Columns lie far apart, and no hardware fetches ahead from one to the next: the same rows of the column
/// that the next block has in this place. A prefetch never faults, wherever that is.
template <bool ForWriting>
void prefetch_next_block(const std::uint8_t* column, std::uint64_t pitch) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(column) + packed_geometry::kCols * pitch;
  __builtin_prefetch(reinterpret_cast<const void*>(at), ForWriting ? 1 : 0);
}

/// Whole rows of a step are eight words; lane 4 g + t takes words t and t + 4 of rows g and g + 8.
void gather_rows(const std::uint8_t* src, std::uint64_t pitch, std::uint8_t* values) noexcept {
  for (std::uint32_t g = 0; g < 8; ++g) {
    const std::uint8_t* a = src + g * pitch;
    const std::uint8_t* b = a + 8 * pitch;
    for (std::uint32_t step = 0; step < packed_geometry::kSteps; ++step) {
      std::array<std::uint32_t, 8> low, high;
      memcpy(low.data(), a + step * 32, 32);
      memcpy(high.data(), b + step * 32, 32);
      std::array<std::uint32_t, 16> lanes;
      for (std::uint32_t t = 0; t < 4; ++t) {
        lanes[4 * t] = low[t];
        lanes[4 * t + 1] = high[t];
        lanes[4 * t + 2] = low[t + 4];
        lanes[4 * t + 3] = high[t + 4];
      }
      memcpy(values + step * 512 + g * 64, lanes.data(), 64);
    }
  }
}

void gather_columns(const std::uint8_t* src, std::uint64_t pitch, std::uint8_t* values) noexcept {
  for (std::uint32_t col = 0; col < packed_geometry::kCols; ++col) {
    const std::uint8_t* from = src + col * pitch;
    prefetch_next_block<false>(from, pitch);
    const packed_place top = place_in_block(0, col);
    std::uint8_t* to = values + top.step * 512 + top.lane * 16 + top.value * 2;
    for (std::uint32_t g = 0; g < 8; ++g) {
      memcpy(to + g * 64, from + 2 * g, 2);
      memcpy(to + g * 64 + 4, from + 2 * g + 16, 2);
    }
  }
}

/// Values of a block that leaves the matrix, row by row into `tile`; the rest is `fill`.
void stage(const matrix_place<const std::uint8_t>& src, const block_window& w, std::uint16_t fill,
           std::uint8_t* tile) noexcept {
  for (std::uint32_t row = 0; row < packed_geometry::kRows; ++row) {
    for (std::uint32_t col = 0; col < packed_geometry::kCols; ++col) {
      std::uint8_t* to = tile + (row * packed_geometry::kCols + col) * 2;
      if (row >= w.rows || col >= w.cols) {
        core::store_le<std::uint16_t>(to, fill);
        continue;
      }
      const std::uint64_t outer = src.by_rows ? w.row + row : w.col + col;
      const std::uint64_t inner = src.by_rows ? w.col + col : w.row + row;
      memcpy(to, src.data + (outer * src.stride + inner) * 2, 2);
    }
  }
}

void gather_part(const matrix_place<const std::uint8_t>& src, const block_window& w, std::uint16_t fill,
                 std::uint8_t* values) noexcept {
  std::array<std::uint8_t, kBlockValueBytes> tile;
  stage(src, w, fill, tile.data());
  gather_rows(tile.data(), packed_geometry::kCols * 2, values);
}

void scatter_rows(const std::uint8_t* values, std::uint8_t* dst, std::uint64_t pitch) noexcept {
  for (std::uint32_t g = 0; g < 8; ++g) {
    std::uint8_t* a = dst + g * pitch;
    std::uint8_t* b = a + 8 * pitch;
    for (std::uint32_t step = 0; step < packed_geometry::kSteps; ++step) {
      std::array<std::uint32_t, 16> lanes;
      memcpy(lanes.data(), values + step * 512 + g * 64, 64);
      std::array<std::uint32_t, 8> low, high;
      for (std::uint32_t t = 0; t < 4; ++t) {
        low[t] = lanes[4 * t];
        high[t] = lanes[4 * t + 1];
        low[t + 4] = lanes[4 * t + 2];
        high[t + 4] = lanes[4 * t + 3];
      }
      memcpy(a + step * 32, low.data(), 32);
      memcpy(b + step * 32, high.data(), 32);
    }
  }
}

void scatter_columns(const std::uint8_t* values, std::uint8_t* dst, std::uint64_t pitch) noexcept {
  for (std::uint32_t col = 0; col < packed_geometry::kCols; ++col) {
    std::uint8_t* to = dst + col * pitch;
    prefetch_next_block<true>(to, pitch);
    const packed_place top = place_in_block(0, col);
    const std::uint8_t* from = values + top.step * 512 + top.lane * 16 + top.value * 2;
    for (std::uint32_t g = 0; g < 8; ++g) {
      memcpy(to + 2 * g, from + g * 64, 2);
      memcpy(to + 2 * g + 16, from + g * 64 + 4, 2);
    }
  }
}

void scatter_part(const std::uint8_t* values, const matrix_place<std::uint8_t>& dst,
                  const block_window& w) noexcept {
  for (std::uint32_t row = 0; row < w.rows; ++row) {
    for (std::uint32_t col = 0; col < w.cols; ++col) {
      const packed_place p = place_in_block(row, col);
      const std::uint64_t outer = dst.by_rows ? w.row + row : w.col + col;
      const std::uint64_t inner = dst.by_rows ? w.col + col : w.row + row;
      memcpy(dst.data + (outer * dst.stride + inner) * 2,
             values + (p.step * kStepValues + p.lane * 8 + p.value) * 2, 2);
    }
  }
}

template <class Byte>
Byte* corner_of(const matrix_place<Byte>& m, const block_window& w) noexcept {
  const std::uint64_t outer = m.by_rows ? w.row : w.col;
  const std::uint64_t inner = m.by_rows ? w.col : w.row;
  return m.data + (outer * m.stride + inner) * 2;
}

}  // namespace

void gather_block(const matrix_place<const std::uint8_t>& src, const block_window& w, std::uint16_t padding,
                  std::uint8_t* values) noexcept {
  if (!w.is_whole()) return gather_part(src, w, padding, values);
  const std::uint8_t* from = corner_of(src, w);
  src.by_rows ? gather_rows(from, src.stride * 2, values) : gather_columns(from, src.stride * 2, values);
}

void scatter_block(const std::uint8_t* values, const matrix_place<std::uint8_t>& dst,
                   const block_window& w) noexcept {
  if (!w.is_whole()) return scatter_part(values, dst, w);
  std::uint8_t* to = corner_of(dst, w);
  dst.by_rows ? scatter_rows(values, to, dst.stride * 2) : scatter_columns(values, to, dst.stride * 2);
}

}  // namespace tersor::codec_detail
