// AVX2: what both codecs share - codebook lookups in vectors, and the way between value order and lane order.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <immintrin.h>

#include "codec/dtype_traits.hpp"
#include "codec/lanes.hpp"
#include "core/bytes.hpp"
#include "cpu/avx2_values.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX2)
#include "cpu/portable_tile.hpp"

namespace {
namespace avx2 {

using tersor::core::load_le;
using tersor::core::store_le;

/// One byte of a table per codebook entry, found from symbols: one 16-entry table for each run of 16 symbols
/// (equal high nibble) in which the codebook has an entry. Symbols outside the codebook give 0.
class symbol_table {
 public:
  /// `by_entry` holds the byte of each entry.
  symbol_table(const coding& c, __m128i by_entry) noexcept {
    std::uint32_t blocks = 0;
    for (unsigned i = 0; i < c.plan.n_entries; ++i) blocks |= 1u << (c.book.symbols[i] >> 4);
    for (; blocks != 0; blocks &= blocks - 1) {
      const auto block = static_cast<unsigned>(std::countr_zero(blocks));
      // Places outside the codebook have their top bit set, which makes the shuffle give 0.
      const __m128i table = _mm_shuffle_epi8(by_entry, load_half(c.place.data() + 16 * block));
      tables_[size_] = _mm256_broadcastsi128_si256(table);
      firsts_[size_++] = _mm256_set1_epi8(static_cast<char>(16 * block));
    }
  }
  [[nodiscard]] unsigned size() const noexcept { return size_; }

  /// `N` = size() if it is known at compile time, else 0.
  template <unsigned N>
  [[nodiscard]] __m256i find(__m256i symbols) const noexcept {
    const unsigned n = N == 0 ? size_ : N;
    __m256i found = _mm256_setzero_si256();
    for (unsigned i = 0; i < n; ++i) {
      // Symbols of other runs saturate past 0x7f, and give 0 again.
      const __m256i index = _mm256_adds_epu8(_mm256_xor_si256(symbols, firsts_[i]), _mm256_set1_epi8(0x70));
      found = _mm256_or_si256(found, _mm256_shuffle_epi8(tables_[i], index));
    }
    return found;
  }

 private:
  unsigned size_ = 0;
  __m256i tables_[16];
  __m256i firsts_[16];
};

/// Calls `body` with the table's size as a constant when it is a usual one.
template <class Body>
inline void with_table_size(const symbol_table& table, Body&& body) noexcept {
  switch (table.size()) {
    case 1:
      return body(std::integral_constant<unsigned, 1>{});
    case 2:
      return body(std::integral_constant<unsigned, 2>{});
    case 3:
      return body(std::integral_constant<unsigned, 3>{});
    default:
      return body(std::integral_constant<unsigned, 0>{});
  }
}

/// Stores the symbols of lanes l .. l + 3, given as [lane l, lane l + 2] and [lane l + 1, lane l + 3] with
/// sub-blocks 0 and 1 (`first`) or 2 and 3 (`second`), in value order.
inline void store_lanes(std::uint8_t* symbols, unsigned lane, unsigned first_row, __m256i even,
                        __m256i odd) noexcept {
  store<false>(symbols + 256 * first_row + 8 * lane, _mm256_unpacklo_epi64(even, odd));
  store<false>(symbols + 256 * (first_row + 1) + 8 * lane, _mm256_unpackhi_epi64(even, odd));
}

}  // namespace avx2
}  // namespace
TERSOR_TARGET_END
