#include "matrix_data.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace gpu_test {

using tersor::dtype;

namespace {

/// The fields of a weight dtype.
struct layout {
  unsigned mantissa_bits, top, middle, low, high;  ///< exponents: all ones, of 1.0, and of the escape range
};
layout layout_of(dtype type) {
  return type == dtype::f16 ? layout{10, 31, 15, 1, 16} : layout{7, 255, 127, 80, 150};
}

std::uint16_t join(const layout& f, std::uint64_t random, unsigned exponent) {
  const auto mantissa = static_cast<unsigned>(random) & ((1u << f.mantissa_bits) - 1);
  const auto sign = static_cast<unsigned>(random >> 20 & 1);
  return static_cast<std::uint16_t>(sign << 15 | exponent << f.mantissa_bits | mantissa);
}

std::uint16_t trained(const layout& f, std::uint64_t random, std::uint64_t row) {
  const auto scale = static_cast<unsigned>(row * 7 % 5);
  const auto below = static_cast<unsigned>(std::countr_zero(random >> 24 | std::uint64_t{1} << 30));
  const unsigned most = f.middle - 2 - scale;
  // One in some hundred is far away, as rows and columns of outliers are.
  if ((random >> 56) == 0)
    return join(f, random, f.low + static_cast<unsigned>(random >> 32) % (f.middle - f.low));
  return join(f, random, most - std::min(below, most));
}

std::uint16_t special(const layout& f, std::uint64_t random, std::uint64_t row) {
  const auto which = static_cast<unsigned>(random >> 40 & 63);
  if (which == 0) return join(f, random, 0);
  if (which == 1) return 0x8000;
  if (which == 2 && row % 7 == 3)
    return static_cast<std::uint16_t>(join(f, random, f.top) & ~((1u << f.mantissa_bits) - 1));
  if (which == 3 && row % 11 == 5) return join(f, random | 1, f.top);
  return trained(f, random, row);
}

std::uint16_t make_one(const layout& f, weights kind, std::uint64_t random, std::uint64_t row,
                       std::uint64_t i) {
  switch (kind) {
    case weights::trained:
      return trained(f, random, row);
    case weights::no_escapes:
      return join(f, random, f.middle - 1 - static_cast<unsigned>(random >> 32 & 7));
    case weights::all_escapes:
      return join(f, random, f.low + static_cast<unsigned>(random >> 32) % (f.high - f.low));
    case weights::constant:
      return join(f, 0x155, f.middle - 1);
    case weights::zeros:
      return static_cast<std::uint16_t>(random & 0x8000);
    case weights::patterns: {
      const auto pattern = static_cast<unsigned>(i * 40503u & 0xffff);
      const unsigned exponent = pattern >> f.mantissa_bits & f.top;
      return static_cast<std::uint16_t>(exponent == f.top ? pattern ^ 1u << f.mantissa_bits : pattern);
    }
    case weights::special:
      return special(f, random, row);
  }
  return 0;
}

}  // namespace

const char* to_string(weights kind) noexcept {
  switch (kind) {
    case weights::trained:
      return "trained";
    case weights::no_escapes:
      return "no escapes";
    case weights::all_escapes:
      return "all escapes";
    case weights::constant:
      return "constant";
    case weights::zeros:
      return "zeros";
    case weights::patterns:
      return "patterns";
    case weights::special:
      return "special";
  }
  return "?";
}

bytes make_weights(dtype type, std::uint64_t rows, std::uint64_t cols, weights kind, std::uint64_t seed) {
  const layout f = layout_of(type);
  bytes out(2 * rows * cols);
  prng random(seed);
  for (std::uint64_t r = 0, i = 0; r < rows; ++r) {
    for (std::uint64_t c = 0; c < cols; ++c, ++i) {
      const std::uint16_t value = make_one(f, kind, random.next(), r, i);
      std::memcpy(out.data() + 2 * i, &value, 2);
    }
  }
  return out;
}

bytes make_tokens(dtype type, std::uint64_t n, std::uint64_t seed) {
  const layout f = layout_of(type);
  bytes out(2 * n);
  prng random(seed);
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t bits = random.next();
    const std::uint16_t value = join(f, bits, f.middle - static_cast<unsigned>(bits >> 32 & 3));
    std::memcpy(out.data() + 2 * i, &value, 2);
  }
  return out;
}

bytes cpu_packed(const tersor::context& ctx, dtype type, std::uint64_t rows, std::uint64_t cols,
                 byte_view dense, const tersor::pack_options& options) {
  auto packed = tersor::pack(ctx, {.type = type, .rows = rows, .cols = cols, .data = dense}, options);
  if (!packed) throw std::runtime_error("the CPU does not pack: " + packed.error().describe());
  return std::move(*packed);
}

tersor::matrix_info info_of(byte_view packed) {
  const auto info = tersor::inspect_packed(packed);
  if (!info) throw std::runtime_error("the CPU refuses a packed matrix: " + info.error().describe());
  return *info;
}

}  // namespace gpu_test
