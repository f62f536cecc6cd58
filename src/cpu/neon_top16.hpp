// NEON: the `top16` codec. A lane's four-bit codes are one vector.
#pragma once

#include <arm_neon.h>

#include "cpu/neon_codes.hpp"

namespace {
namespace neon {

bool decode_top16(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                  std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  const uint8x16_t book = vld1q_u8(c.book.symbols.data());
  uint8x16_t highest = vdupq_n_u8(0);
  for (unsigned l = 0; l < kLanes; ++l) {
    const uint8x16_t codes = vld1q_u8(code_plane + 16 * l);
    const uint8x16_t even = vandq_u8(codes, vdupq_n_u8(0x0f));
    const uint8x16_t odd = vshrq_n_u8(codes, 4);
    highest = vmaxq_u8(highest, vmaxq_u8(even, odd));
    store_lane(symbols, l, 0, vqtbl1q_u8(book, vzip1q_u8(even, odd)));
    store_lane(symbols, l, 1, vqtbl1q_u8(book, vzip2q_u8(even, odd)));
  }
  const bool found = vmaxvq_u8(highest) == 15;
  if (found != escapes) return false;
  std::array<std::uint16_t, kTileValues> values;
  std::uint32_t n_escapes = 0;
  if (found) {
    portable::for_each_escape(
        code_plane, [&](std::uint32_t value) { values[n_escapes++] = static_cast<std::uint16_t>(value); });
  }
  return portable::take_escapes(c, tail, 0, words * 32, values.data(), n_escapes, symbols);
}

coded_tile encode_top16(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                        std::uint8_t* tail) noexcept {
  const place_table table(c);
  const uint8x16_t escape = vdupq_n_u8(15);
  uint8x16_t highest = vdupq_n_u8(0);
  for (unsigned l = 0; l < kLanes; ++l) {
    const uint8x16_t first = vminq_u8(table.find(load_lane(symbols, l, 0)), escape);
    const uint8x16_t second = vminq_u8(table.find(load_lane(symbols, l, 1)), escape);
    highest = vmaxq_u8(highest, vmaxq_u8(first, second));
    vst1q_u8(code_plane + 16 * l, vsliq_n_u8(vuzp1q_u8(first, second), vuzp2q_u8(first, second), 4));
  }
  const bool found = vmaxvq_u8(highest) == 15;
  std::uint32_t n_bytes = 0;
  if (found) {
    portable::for_each_escape(code_plane, [&](std::uint32_t value) { tail[n_bytes++] = symbols[value]; });
  }
  memset(tail + n_bytes, 0, 4);
  const std::uint32_t words = (n_bytes + 3) / 4;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = found};
}

}  // namespace neon
}  // namespace
