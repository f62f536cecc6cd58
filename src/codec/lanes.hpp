// Lane order and field planes (spec/codecs.md section 2), one value at a time.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace tersor::codec_detail {

/// Place in lane order (32 l + 8 s + k) of value 256 s + 8 l + k.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t lane_order(std::uint32_t value) noexcept {
  return ((value & 0xf8) << 2) | ((value >> 5) & 0x18) | (value & 7);
}

/// The inverse of lane_order.
[[nodiscard]] TERSOR_HD constexpr std::uint32_t value_order(std::uint32_t place) noexcept {
  return ((place & 0x18) << 5) | ((place >> 2) & 0xf8) | (place & 7);
}

/// Field `place` of a field plane whose fields are `width` (1, 2, 4) bits.
[[nodiscard]] TERSOR_HD inline std::uint32_t get_field(const std::uint8_t* plane, std::uint32_t width,
                                                       std::uint32_t place) noexcept {
  const std::uint32_t bit = place * width;
  return (static_cast<std::uint32_t>(plane[bit >> 3]) >> (bit & 7)) & ((1u << width) - 1);
}

/// Sets field `place` of a plane that was zero there.
TERSOR_HD inline void put_field(std::uint8_t* plane, std::uint32_t width, std::uint32_t place,
                                std::uint32_t field) noexcept {
  const std::uint32_t bit = place * width;
  plane[bit >> 3] = static_cast<std::uint8_t>(plane[bit >> 3] | (field << (bit & 7)));
}

}  // namespace tersor::codec_detail
