// BF16 and FP16 as floats and back, rounded to nearest even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace simt {

inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_f16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
}
inline std::uint16_t to_f16(float value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  if (std::isnan(value)) return 0x7fff;
  const double size = std::fabs(static_cast<double>(value));
  if (size >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7c00);
  int exponent = 0;
  std::frexp(size, &exponent);
  // Steps of 2^-24 below 2^-14, then of 2^(exponent - 11); std::nearbyint rounds to even.
  const int step = size < std::ldexp(1.0, -14) ? -24 : exponent - 11;
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(size, -step)), step);
  if (rounded < std::ldexp(1.0, -14))
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::ldexp(rounded, 24)));
  std::frexp(rounded, &exponent);
  const auto mantissa = static_cast<std::uint16_t>(std::ldexp(rounded, 11 - exponent));
  return static_cast<std::uint16_t>(sign | ((exponent + 14) << 10) | (mantissa & 1023));
}

}  // namespace simt
