// How the packing kernels take a value apart (src/codec/packed_layout.hpp).
#pragma once

#include "codec/packed_layout.hpp"
#include "cuda/ptx/ptx.cuh"

namespace tersor::cuda {

template <bool kIsHalf>
struct weight_fields {
  static constexpr bool kHalf = kIsHalf;
  static constexpr u32 kMantissaBits = kHalf ? 10 : 7;
  static constexpr u32 kSymbolCount = kHalf ? 32 : 256;
  static constexpr u32 kHighWords = kHalf ? 8 : 2;  ///< of a lane

  static TERSOR_DEVICE u32 symbol(u32 value) { return value >> kMantissaBits & (kSymbolCount - 1); }
  static TERSOR_DEVICE u32 rest_byte(u32 value) {
    return kHalf ? value & 0xffu : (value >> 8 & 0x80u) | (value & 0x7fu);
  }
  /// What padding decodes to: zero, or the next symbol's smallest value where the first one is no number's.
  static TERSOR_DEVICE u32 padding(u32 first_symbol, u32 second_symbol) {
    return (first_symbol == kSymbolCount - 1 ? second_symbol : first_symbol) << kMantissaBits;
  }

  /// Adds the code of value `j` of step `kStep` to the planes' words.
  template <u32 kStep>
  static TERSOR_DEVICE void put_code(u32 code, u32 value, u32 j, u32& low, u32 (&high)[kHighWords]) {
    low |= (code & 3) << (4 * j + 2 * (kStep % 2));
    if constexpr (kHalf) {
      high[kStep] |= ((value >> 15) << 3 | (code & 4) | (value >> 8 & 3)) << (4 * j);
    } else {
      constexpr u32 k = kStep % 4, bit = k == 0 ? 2 : k == 1 ? 3 : k == 2 ? 1 : 0;
      high[kStep / 4] |= (code >> 2) << (4 * j + bit);
    }
  }
};

}  // namespace tersor::cuda
