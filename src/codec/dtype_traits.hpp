// How a value of each coded dtype splits into symbol and rest (spec/codecs.md section 1).
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace tersor::codec_detail {

/// `ByteCount` whole rest bytes go to byte planes; `Field0` and `Field1` are the widths of the rest field
/// planes (0 = none).
template <class Bits, unsigned SymbolBits, unsigned MantissaBits, unsigned ByteCount, unsigned Field0,
          unsigned Field1>
struct float_split {
  using bits = Bits;
  static constexpr unsigned kValueBytes = sizeof(Bits);
  static constexpr unsigned kSymbolBits = SymbolBits;
  static constexpr unsigned kMantissaBits = MantissaBits;
  static constexpr unsigned kBytePlanes = ByteCount;
  static constexpr unsigned kField0 = Field0;
  static constexpr unsigned kField1 = Field1;
  static constexpr std::uint32_t kMantissaMask = (1u << MantissaBits) - 1;
  static_assert(1 + SymbolBits + MantissaBits == 8 * sizeof(Bits));
  static_assert(8 * ByteCount + Field0 + Field1 == 1 + MantissaBits);

  [[nodiscard]] TERSOR_HD static std::uint8_t symbol(std::uint32_t value) noexcept {
    return static_cast<std::uint8_t>((value >> MantissaBits) & ((1u << SymbolBits) - 1));
  }
  [[nodiscard]] TERSOR_HD static std::uint32_t rest(std::uint32_t value) noexcept {
    return (value >> (MantissaBits + SymbolBits) << MantissaBits) | (value & kMantissaMask);
  }
  [[nodiscard]] TERSOR_HD static std::uint32_t join(std::uint32_t symbol, std::uint32_t rest) noexcept {
    return (rest >> MantissaBits << (MantissaBits + SymbolBits)) | (symbol << MantissaBits) |
           (rest & kMantissaMask);
  }
};

using bf16_split = float_split<std::uint16_t, 8, 7, 1, 0, 0>;
using f16_split = float_split<std::uint16_t, 5, 10, 1, 2, 1>;
using f32_split = float_split<std::uint32_t, 8, 23, 3, 0, 0>;
using e4m3_split = float_split<std::uint8_t, 4, 3, 0, 4, 0>;
using e5m2_split = float_split<std::uint8_t, 5, 2, 0, 2, 1>;

}  // namespace tersor::codec_detail
