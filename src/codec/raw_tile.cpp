#include <cstring>

#include "codec/lanes.hpp"
#include "codec/tile_ops.hpp"

namespace tersor::codec_detail {

void encode_raw_tile(const level_plan& plan, const std::uint8_t* symbols, std::uint8_t* code_plane,
                     std::uint8_t* tail) noexcept {
  const std::uint32_t w1 = plan.widths[0];
  memset(code_plane, 0, plan.code_plane_bytes());
  for (std::uint32_t j = 0; j < kTileValues; ++j) {
    put_field(code_plane, w1, j, symbols[value_order(j)] & ((1u << w1) - 1));
  }
  memset(tail, 0, plan.raw_words() * 4);
  std::uint32_t shift = w1;
  while (shift < plan.symbol_bits) {
    const std::uint32_t width = field_width(plan.symbol_bits - shift);
    for (std::uint32_t j = 0; j < kTileValues; ++j) {
      put_field(tail, width, j,
                (static_cast<std::uint32_t>(symbols[value_order(j)]) >> shift) & ((1u << width) - 1));
    }
    tail += width * (kTileValues / 8);
    shift += width;
  }
}

void decode_raw_tile(const level_plan& plan, const std::uint8_t* code_plane, const std::uint8_t* tail,
                     std::uint8_t* symbols) noexcept {
  const std::uint32_t w1 = plan.widths[0];
  for (std::uint32_t j = 0; j < kTileValues; ++j) {
    symbols[value_order(j)] = static_cast<std::uint8_t>(get_field(code_plane, w1, j));
  }
  std::uint32_t shift = w1;
  while (shift < plan.symbol_bits) {
    const std::uint32_t width = field_width(plan.symbol_bits - shift);
    for (std::uint32_t j = 0; j < kTileValues; ++j) {
      std::uint8_t& symbol = symbols[value_order(j)];
      symbol = static_cast<std::uint8_t>(symbol | (get_field(tail, width, j) << shift));
    }
    tail += width * (kTileValues / 8);
    shift += width;
  }
}

}  // namespace tersor::codec_detail
