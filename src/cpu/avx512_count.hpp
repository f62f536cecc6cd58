// Exact symbol counts. Part of avx512.cpp only.
//
// Sixteen symbols that a sample finds frequent are counted by comparison, 64 values at a time; any other
// symbol is counted one by one.
#pragma once

#include <algorithm>

#include "codec/dtype_traits.hpp"
#include "core/bytes.hpp"
#include "cpu/avx512_places.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

constexpr unsigned kCandidates = 16;
constexpr std::uintptr_t kCountAhead = 2048;

/// Symbols of 64 values of one dtype, in any order.
template <class Split>
TERSOR_VEC vec symbols_of(const std::uint8_t* values) noexcept {
  if constexpr (Split::kValueBytes == 1) {
    return _mm512_and_si512(_mm512_srli_epi16(load(values), Split::kMantissaBits),
                            splat((1u << Split::kSymbolBits) - 1));
  } else if constexpr (Split::kValueBytes == 2) {
    // Shifted to the top of each value; then two vectors share one.
    constexpr unsigned kUp = 16 - Split::kMantissaBits - Split::kSymbolBits;
    const vec a = _mm512_slli_epi16(load(values), kUp);
    const vec b = _mm512_slli_epi16(load(values + kVec), kUp);
    const vec both = select(_mm512_set1_epi16(0x00ff), _mm512_srli_epi16(b, 8), a);
    if constexpr (Split::kSymbolBits == 8) return both;
    return _mm512_and_si512(_mm512_srli_epi16(both, 8 - Split::kSymbolBits),
                            splat((1u << Split::kSymbolBits) - 1));
  } else {
    vec both = _mm512_setzero_si512();
    for (unsigned i = 0; i < 4; ++i) {
      const vec top = _mm512_srli_epi32(_mm512_slli_epi32(load(values + kVec * i), 1), 24);
      both = _mm512_or_si512(_mm512_slli_epi32(both, 8), top);
    }
    return both;
  }
}

template <class Split>
void count_one_by_one(const std::uint8_t* values, std::uint64_t n, std::uint64_t* counts) noexcept {
  std::array<std::array<std::uint64_t, 256>, 4> tables = {};
  for (std::uint64_t i = 0; i < n; ++i) {
    ++tables[i & 3]
            [Split::symbol(tersor::core::load_le<typename Split::bits>(values + i * Split::kValueBytes))];
  }
  for (unsigned s = 0; s < 256; ++s) counts[s] += tables[0][s] + tables[1][s] + tables[2][s] + tables[3][s];
}

/// The most frequent symbols of a sample spread over the values, as a codebook; false if they cover too
/// little of it.
template <class Split>
bool choose_candidates(const std::uint8_t* values, std::uint64_t n, tersor::codebook& candidates) noexcept {
  constexpr std::uint64_t kSample = 2048;
  constexpr std::int32_t kTaken = -1;
  std::array<std::int32_t, 256> seen = {};
  const std::uint64_t step = n / kSample;
  for (std::uint64_t i = 0; i < kSample; ++i) {
    const std::uint8_t* at = values + i * step * Split::kValueBytes;
    ++seen[Split::symbol(tersor::core::load_le<typename Split::bits>(at))];
  }
  std::int32_t covered = 0;
  for (std::uint8_t& candidate : candidates.symbols) {
    const auto best = std::max_element(seen.begin(), seen.end());
    candidate = static_cast<std::uint8_t>(best - seen.begin());
    covered += *best;
    *best = kTaken;
  }
  return covered >= static_cast<std::int32_t>(kSample - kSample / 16);
}

/// Counts `n_vectors` <= 255 times 64 values.
template <class Split, class Places>
void count_block(const std::uint8_t* values, unsigned n_vectors, const tersor::codebook& candidates,
                 const Places& places, std::uint64_t* counts) noexcept {
  vec hits[kCandidates];
  for (vec& h : hits) h = _mm512_setzero_si512();
  const vec one = splat(1);
  for (unsigned i = 0; i < n_vectors; ++i) {
    const std::uint8_t* at = values + std::uint64_t{i} * kVec * Split::kValueBytes;
    for (unsigned k = 0; k < Split::kValueBytes; ++k) prefetch(at + kVec * k, kCountAhead);
    const vec symbols = symbols_of<Split>(at);
    const vec place = places(symbols);
    for (unsigned c = 0; c < kCandidates; ++c) {
      hits[c] = _mm512_mask_add_epi8(hits[c], _mm512_cmpeq_epi8_mask(place, splat(c)), hits[c], one);
    }
    // Only kNoPlace has the high bit.
    if (const std::uint64_t others = _mm512_movepi8_mask(place); others != 0) {
      alignas(64) bytes64 rare;
      _mm512_store_si512(rare.data(), _mm512_maskz_compress_epi8(others, symbols));
      for (unsigned k = 0; k < count_bits(others); ++k) ++counts[rare[k]];
    }
  }
  for (unsigned c = 0; c < kCandidates; ++c) {
    const vec sums = _mm512_sad_epu8(hits[c], _mm512_setzero_si512());
    counts[candidates.symbols[c]] += static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sums));
  }
}

template <class Split>
void count(const std::uint8_t* values, std::uint64_t n_values, std::uint64_t* counts) noexcept {
  constexpr std::uint64_t kFewValues = 16384;
  constexpr unsigned kMaxVectors = 255;
  tersor::codebook candidates;
  if (n_values < kFewValues || !choose_candidates<Split>(values, n_values, candidates)) {
    return count_one_by_one<Split>(values, n_values, counts);
  }
  const coding c = make_coding(make_plan(tersor::codec::rank, 8), candidates);
  const bool near = is_near(c);
  const near_places near_table(c);
  const all_places all_table(c);
  while (n_values >= kVec) {
    const auto n = static_cast<unsigned>(std::min<std::uint64_t>(kMaxVectors, n_values / kVec));
    if (near) {
      count_block<Split>(values, n, candidates, near_table, counts);
    } else {
      count_block<Split>(values, n, candidates, all_table, counts);
    }
    values += std::uint64_t{n} * kVec * Split::kValueBytes;
    n_values -= std::uint64_t{n} * kVec;
  }
  count_one_by_one<Split>(values, n_values, counts);
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
