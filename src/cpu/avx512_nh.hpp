// The digest's two NH sums (spec/codecs.md section 5). Part of avx512.cpp only.
#pragma once

#include <type_traits>

#include "cpu/avx512_vec.hpp"
#include "cpu/nh_row_keys.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// How far ahead of the tile at work its successors are fetched, in bytes.
constexpr std::uintptr_t kDigestAhead = 4096;

/// Adds up eight columns of each sum without carries between their halves.
TERSOR_VEC void fold_sums(vec first, vec second, nh_sums& sums) noexcept {
  // Unpacking puts the two sums side by side, so that they fold together.
  const vec both =
      _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
  const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums.t.data()), sum);
}

/// The sums of a tile of W-byte values, fed with 8 columns at a time.
template <unsigned W>
class nh_state {
 public:
  static constexpr unsigned kRowBytes = 256 * W;

  // Written out, as the compiler's own constructor would be of the baseline target.
  TERSOR_VEC nh_state() noexcept : folded_{_mm512_setzero_si512(), _mm512_setzero_si512()} {}

  /// The four rows of the 8 columns that begin at byte `at` of a row.
  TERSOR_VEC void add(const quad& rows, unsigned at) noexcept {
    for (unsigned n = 0; n < kNhSums; ++n) {
      vec column = product(rows.v[0], n, at);
      for (unsigned s = 1; s < kRows; ++s)
        column = _mm512_add_epi64(column, product(rows.v[s], n, s * kRowBytes + at));
      folded_[n] = _mm512_add_epi32(folded_[n], column);
    }
  }

  TERSOR_VEC void finish(nh_sums& sums) const noexcept { fold_sums(folded_[0], folded_[1], sums); }

 private:
  TERSOR_VEC static vec product(vec row, unsigned n, unsigned at) noexcept {
    const vec keyed = _mm512_add_epi32(row, _mm512_load_si512(kNhRowKeys<W>.words[n].data() + at / 4));
    return _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
  }

  vec folded_[kNhSums];
};

/// The sums of a tile of 2-byte values that is fed row by row, in the order of memory, so that the CPU's own
/// prefetcher follows: every column keeps its sum in a register.
class nh_row_state {
 public:
  static constexpr unsigned kColumns = 8;  ///< vectors a row

  TERSOR_VEC nh_row_state() noexcept {}

  /// Vector `Column` of row `s`; row 0 first.
  template <unsigned Column, bool FirstRow>
  TERSOR_VEC void add(vec v, unsigned s) noexcept {
    const unsigned word = (s * kColumns + Column) * (kVec / 4);
    for (unsigned n = 0; n < kNhSums; ++n) {
      const vec keyed = _mm512_add_epi32(v, _mm512_load_si512(kNhRowKeys<2>.words[n].data() + word));
      const vec product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
      sums_[n][Column] = FirstRow ? product : _mm512_add_epi64(sums_[n][Column], product);
    }
  }

  TERSOR_VEC void finish(nh_sums& sums) const noexcept {
    vec folded[kNhSums];
    for (unsigned n = 0; n < kNhSums; ++n) {
      folded[n] = sums_[n][0];
      for (unsigned c = 1; c < kColumns; ++c) folded[n] = _mm512_add_epi32(folded[n], sums_[n][c]);
    }
    fold_sums(folded[0], folded[1], sums);
  }

 private:
  vec sums_[kNhSums][kColumns];
};

/// Calls `f` with 0 .. 3 as compile-time constants.
template <class F>
TERSOR_VEC void each_of_4(F&& f) noexcept {
  f(std::integral_constant<unsigned, 0>{});
  f(std::integral_constant<unsigned, 1>{});
  f(std::integral_constant<unsigned, 2>{});
  f(std::integral_constant<unsigned, 3>{});
}

template <unsigned W>
void nh_tile(const std::uint8_t* tile, nh_sums& sums) noexcept {
  constexpr unsigned kRow = nh_state<W>::kRowBytes;
  nh_state<W> state;
  for (unsigned at = 0; at < kRow; at += kVec) {
    state.add(
        {{load(tile + at), load(tile + kRow + at), load(tile + 2 * kRow + at), load(tile + 3 * kRow + at)}},
        at);
  }
  state.finish(sums);
}

template <bool FirstRow>
TERSOR_VEC void nh_row(const std::uint8_t* tile, unsigned s, nh_row_state& state) noexcept {
  each_of_4([&](auto g) __attribute__((always_inline)) {
    const std::uint8_t* at = tile + 512 * s + 128 * g;
    prefetch(at, kDigestAhead);
    prefetch(at, kDigestAhead + kVec);
    state.add<2 * g, FirstRow>(load(at), s);
    state.add<2 * g + 1, FirstRow>(load(at + kVec), s);
  });
}

/// Whole tensors are digested with W = 2, so that one is worth the order of memory.
template <>
void nh_tile<2>(const std::uint8_t* tile, nh_sums& sums) noexcept {
  nh_row_state state;
  nh_row<true>(tile, 0, state);
  for (unsigned s = 1; s < kRows; ++s) nh_row<false>(tile, s, state);
  state.finish(sums);
}

void nh(const std::uint8_t* tile, std::uint32_t value_bytes, nh_sums& sums) noexcept {
  if (value_bytes == 1) return nh_tile<1>(tile, sums);
  if (value_bytes == 2) return nh_tile<2>(tile, sums);
  nh_tile<4>(tile, sums);
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
