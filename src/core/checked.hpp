// Arithmetic on sizes that says when it leaves 64 bits.
#pragma once

#include <cstdint>
#include <optional>

namespace tersor::core {

[[nodiscard]] constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

[[nodiscard]] constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

[[nodiscard]] constexpr std::uint64_t ceil_div(std::uint64_t a, std::uint64_t b) noexcept {
  return a / b + (a % b != 0 ? 1 : 0);
}

/// Rounds up to a multiple of a power of two; the caller bounds `a` well below 2^64.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t a, std::uint64_t alignment) noexcept {
  return (a + alignment - 1) & ~(alignment - 1);
}

}  // namespace tersor::core
