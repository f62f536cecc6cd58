// Symbols to places in the codebook. Part of avx512.cpp only.
#pragma once

#include "cpu/avx512_vec.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// Codebook entry of each of 64 symbols, kNoPlace for escapes, when the codebook spans at most 63 symbols:
/// one table.
class near_places {
 public:
  static constexpr unsigned kSpan = 63;
  explicit near_places(const coding& c) noexcept
      : first_(splat(c.first_symbol)),
        table_(_mm512_mask_loadu_epi8(splat(kNoPlace), low_mask(256u - c.first_symbol),
                                      c.place.data() + c.first_symbol)) {
    // Everything outside the window lands on its last entry.
    table_ = _mm512_mask_mov_epi8(table_, std::uint64_t{1} << kSpan, splat(kNoPlace));
  }
  TERSOR_VEC vec operator()(vec symbols) const noexcept {
    return _mm512_permutexvar_epi8(_mm512_min_epu8(_mm512_sub_epi8(symbols, first_), splat(kSpan)), table_);
  }

 private:
  vec first_;
  vec table_;
};

/// The same for any codebook.
class all_places {
 public:
  explicit all_places(const coding& c) noexcept {
    for (unsigned i = 0; i < 4; ++i) table_[i] = load(c.place.data() + kVec * i);
  }
  TERSOR_VEC vec operator()(vec symbols) const noexcept {
    const vec low = _mm512_permutex2var_epi8(table_[0], symbols, table_[1]);
    const vec high = _mm512_permutex2var_epi8(table_[2], symbols, table_[3]);
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(symbols), high);
  }

 private:
  vec table_[4];
};

TERSOR_VEC bool is_near(const coding& c) noexcept {
  return c.last_symbol - c.first_symbol < static_cast<int>(near_places::kSpan);
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
