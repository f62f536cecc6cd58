// Deterministic tensors for golden files: the same bytes on every machine and standard library.
#pragma once

#include <cstdint>
#include <vector>

#include <tersor/tensor.hpp>

namespace golden {

/// SplitMix64 (Steele, Lea, Flood 2014).
class prng {
 public:
  explicit prng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return z ^ z >> 31;
  }

 private:
  std::uint64_t state_;
};

enum class pattern {
  weights,   ///< few frequent exponents, 1 in 64 anything
  clean,     ///< frequent exponents only
  uniform,   ///< random bits
  constant,  ///< one value
  mixed,     ///< tile by tile: weights, uniform, constant, clean
  counting,  ///< value v is the number v
};

const char* to_string(pattern p) noexcept;

/// `n` values of `type`; for dtypes without exponent every pattern is random bytes (BOOL: 0 and 1).
std::vector<std::byte> sample(tersor::dtype type, std::uint64_t n, pattern p, std::uint64_t seed);

}  // namespace golden
