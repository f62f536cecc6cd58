#include "sample_data.hpp"

#include <algorithm>
#include <bit>

namespace golden {
namespace {

using tersor::dtype;

struct fields {
  unsigned symbol_bits, mantissa_bits, usual;
};

fields fields_of(dtype type) noexcept {
  switch (type) {
    case dtype::bf16:
      return {8, 7, 122};
    case dtype::f16:
      return {5, 10, 13};
    case dtype::f32:
      return {8, 23, 122};
    case dtype::f8_e4m3:
      return {4, 3, 9};
    default:
      return {5, 2, 17};
  }
}

std::uint64_t value(const fields& f, std::uint64_t v, pattern p, prng& random) noexcept {
  const std::uint64_t bits = random.next();
  const unsigned all = f.symbol_bits + f.mantissa_bits + 1;
  if (p == pattern::counting) return v;
  if (p == pattern::uniform) return bits >> (64 - all);
  if (p == pattern::constant) return std::uint64_t{f.usual} << f.mantissa_bits;
  std::uint64_t symbol = f.usual - std::min(static_cast<unsigned>(std::countr_zero(bits)), f.usual / 2);
  if (p == pattern::weights && (bits >> 32) % 64 == 0) symbol = random.next() >> (64 - f.symbol_bits);
  const std::uint64_t rest = random.next();
  const std::uint64_t mantissa = rest & ((std::uint64_t{1} << f.mantissa_bits) - 1);
  return (rest >> 63) << (all - 1) | symbol << f.mantissa_bits | mantissa;
}

pattern of_tile(pattern p, std::uint64_t tile) noexcept {
  constexpr pattern kCycle[] = {pattern::weights, pattern::uniform, pattern::constant, pattern::clean};
  return p == pattern::mixed ? kCycle[tile % 4] : p;
}

}  // namespace

const char* to_string(pattern p) noexcept {
  constexpr const char* kNames[] = {"weights", "clean", "uniform", "constant", "mixed", "counting"};
  return kNames[static_cast<int>(p)];
}

std::vector<std::byte> sample(dtype type, std::uint64_t n, pattern p, std::uint64_t seed) {
  prng random(seed);
  const std::uint64_t width = tersor::value_bytes(type);
  std::vector<std::byte> out(n * width);
  if (!tersor::is_codable(type)) {
    const std::uint64_t mask = type == dtype::boolean ? 1 : 0xff;
    for (auto& b : out) b = static_cast<std::byte>(random.next() >> 20 & mask);
    return out;
  }
  const fields f = fields_of(type);
  for (std::uint64_t v = 0; v < n; ++v) {
    const std::uint64_t bits = value(f, v, of_tile(p, v / 1024), random);
    for (std::uint64_t b = 0; b < width; ++b) out[v * width + b] = static_cast<std::byte>(bits >> (8 * b));
  }
  return out;
}

}  // namespace golden
