// Raw tiles (spec/codecs.md section 4.2). Part of avx512.cpp only.
#pragma once

#include "cpu/avx512_vec.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// Bits [shift, shift + width) of a tile's symbols -> their field plane.
TERSOR_VEC void put_fields(const std::uint8_t* symbols, unsigned width, unsigned shift,
                           std::uint8_t* plane) noexcept {
  const __m128i by = _mm_cvtsi32_si128(static_cast<int>(shift));
  const vec mask = splat((1u << width) - 1);
  for (unsigned g = 0; g < kGroups; ++g) {
    quad fields;
    std::array<std::uint64_t, 4> bits;
    for (unsigned s = 0; s < kRows; ++s) {
      const vec symbol = load(symbols + 256 * s + 64 * g);
      fields.v[s] = _mm512_and_si512(_mm512_srl_epi16(symbol, by), mask);
      bits[s] = _mm512_test_epi8_mask(fields.v[s], splat(1));
    }
    if (width == 4) {
      const vec_pair packed = pack4(fields);
      store(plane + 128 * g, packed.low);
      store(plane + 128 * g + kVec, packed.high);
    } else if (width == 2) {
      store(plane + 64 * g, pack2(fields));
    } else {
      pack1(bits, plane + 32 * g);
    }
  }
}

/// The inverse of put_fields: sets those bits of symbols that were zero there.
TERSOR_VEC void get_fields(const std::uint8_t* plane, unsigned width, unsigned shift,
                           std::uint8_t* symbols) noexcept {
  const __m128i by = _mm_cvtsi32_si128(static_cast<int>(shift));
  const vec mask = splat((1u << width) - 1);
  for (unsigned g = 0; g < kGroups; ++g) {
    quad fields;
    if (width == 4) {
      fields = unpack4(plane + 128 * g);
    } else if (width == 2) {
      for (unsigned s = 0; s < kRows; ++s) fields.v[s] = unpack2(load(plane + 64 * g), s);
    } else {
      const auto bits = unpack1(plane + 32 * g);
      for (unsigned s = 0; s < kRows; ++s) fields.v[s] = _mm512_maskz_set1_epi8(bits[s], 1);
    }
    for (unsigned s = 0; s < kRows; ++s) {
      std::uint8_t* at = symbols + 256 * s + 64 * g;
      const vec field = _mm512_sll_epi16(_mm512_and_si512(fields.v[s], mask), by);
      store(at, shift == 0 ? field : _mm512_or_si512(load(at), field));
    }
  }
}

void encode_raw(const level_plan& plan, const std::uint8_t* symbols, std::uint8_t* code_plane,
                std::uint8_t* tail) noexcept {
  put_fields(symbols, plan.widths[0], 0, code_plane);
  for (unsigned shift = plan.widths[0]; shift < plan.symbol_bits;) {
    const unsigned width = field_width(plan.symbol_bits - shift);
    put_fields(symbols, width, shift, tail);
    tail += width * (kTileValues / 8);
    shift += width;
  }
}

void decode_raw(const level_plan& plan, const std::uint8_t* code_plane, const std::uint8_t* tail,
                std::uint8_t* symbols) noexcept {
  get_fields(code_plane, plan.widths[0], 0, symbols);
  for (unsigned shift = plan.widths[0]; shift < plan.symbol_bits;) {
    const unsigned width = field_width(plan.symbol_bits - shift);
    get_fields(tail, width, shift, symbols);
    tail += width * (kTileValues / 8);
    shift += width;
  }
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
