// The digest keys of a whole tile with the row keys added, in the order of the tile's 32-bit words: what a
// vector adds to the tile's words is one load.
#pragma once

#include <array>
#include <cstdint>

#include "codec/digest.hpp"

namespace tersor::codec_detail {

template <unsigned ValueBytes>
struct nh_row_keys {
  static constexpr unsigned kRowWords = 64 * ValueBytes;
  alignas(64) std::array<std::array<std::uint32_t, kRows * kRowWords>, kNhSums> words = {};
};

template <unsigned ValueBytes>
consteval nh_row_keys<ValueBytes> make_nh_row_keys() {
  nh_row_keys<ValueBytes> keys;
  for (unsigned n = 0; n < kNhSums; ++n) {
    for (unsigned s = 0; s < kRows; ++s) {
      for (unsigned i = 0; i < keys.kRowWords; ++i) {
        keys.words[n][s * keys.kRowWords + i] = kNhKeys.columns[n][i] + kNhKeys.rows[n][s];
      }
    }
  }
  return keys;
}

template <unsigned ValueBytes>
inline constexpr nh_row_keys<ValueBytes> kNhRowKeys = make_nh_row_keys<ValueBytes>();

}  // namespace tersor::codec_detail
