// Symbols of a block of a packed matrix: counted, and turned into codes. Part of avx512.cpp only.
#pragma once

#include "cpu/avx512_vec.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

constexpr unsigned kBlockVecs = kBlockSymbols / kVec;
/// A round counts one symbol in all vectors; single increments are faster for what few symbols leave over.
constexpr unsigned kMaxRounds = 20;
constexpr unsigned kFewLeft = 96;

/// Counts `symbol` and takes its places out of `left`; returns how many there were.
TERSOR_VEC unsigned count_round(const std::uint8_t* symbols, unsigned symbol,
                                std::uint64_t (&left)[kBlockVecs]) noexcept {
  const vec wanted = splat(symbol);
  unsigned n = 0;
  for (unsigned v = 0; v < kBlockVecs; ++v) {
    const std::uint64_t found = _mm512_cmpeq_epi8_mask(load(symbols + kVec * v), wanted);
    n += count_bits(found);
    left[v] &= ~found;
  }
  return n;
}

/// Weights have few symbols, so that comparing all values with one symbol after the other beats a table of
/// counters, whose increments wait for each other.
void count_block(const std::uint8_t* symbols, std::uint16_t* counts) noexcept {
  std::uint64_t left[kBlockVecs];
  for (std::uint64_t& mask : left) mask = ~std::uint64_t{0};
  unsigned n_left = kBlockSymbols, at = 0;
  for (unsigned round = 0; round < kMaxRounds && n_left > kFewLeft; ++round) {
    while (left[at] == 0) ++at;
    const unsigned symbol = symbols[kVec * at + _tzcnt_u64(left[at])];
    const unsigned n = count_round(symbols, symbol, left);
    counts[symbol] = static_cast<std::uint16_t>(n);
    n_left -= n;
  }
  for (; n_left != 0; ++at) {
    for (std::uint64_t mask = left[at]; mask != 0; mask &= mask - 1, --n_left)
      ++counts[symbols[kVec * at + _tzcnt_u64(mask)]];
  }
}

/// codes[i] = table[symbols[i]]
void map_block(const std::uint8_t* symbols, const std::uint8_t* table, std::uint8_t* codes) noexcept {
  const vec t0 = load(table), t1 = load(table + kVec), t2 = load(table + 2 * kVec),
            t3 = load(table + 3 * kVec);
  for (unsigned at = 0; at < kBlockSymbols; at += kVec) {
    const vec s = load(symbols + at);
    const vec low = _mm512_permutex2var_epi8(t0, s, t1), high = _mm512_permutex2var_epi8(t2, s, t3);
    store(codes + at, _mm512_mask_blend_epi8(_mm512_movepi8_mask(s), low, high));
  }
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
