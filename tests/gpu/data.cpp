#include "data.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>

namespace gpu_test {
namespace {

using tersor::codec;
using tersor::dtype;

constexpr std::uint64_t kBlockValues = 1 << 16;

/// The bits of a number in a type's format, cut, not rounded; out of range: the nearest exponent.
std::uint32_t to_bits(double number, const type_fields& f) {
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(number), &exponent);
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  const int top = (1 << f.exponent_bits) - 1;
  const auto field = static_cast<std::uint32_t>(std::clamp(exponent - 1 + bias, 0, top));
  const auto mantissa =
      static_cast<std::uint32_t>((2 * fraction - 1) * (1 << f.mantissa_bits)) & ((1u << f.mantissa_bits) - 1);
  const std::uint32_t sign = number < 0 ? 1 : 0;
  return sign << (f.exponent_bits + f.mantissa_bits) | field << f.mantissa_bits | mantissa;
}

/// Normally distributed numbers, as bits.
std::vector<std::uint32_t> make_normal_table(const type_fields& f) {
  std::vector<std::uint32_t> table(kBlockValues);
  prng random(f.exponent_bits);
  for (auto& entry : table) {
    const double u = (static_cast<double>(random.next() >> 11) + 0.5) * 0x1p-53;
    const double v = static_cast<double>(random.next() >> 11) * 0x1p-53;
    entry = to_bits(0.05 * std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v), f);
  }
  return table;
}

const std::vector<std::uint32_t>& normal_table(dtype type) {
  static const std::array tables = {
      make_normal_table(fields_of(dtype::bf16)), make_normal_table(fields_of(dtype::f16)),
      make_normal_table(fields_of(dtype::f8_e4m3)), make_normal_table(fields_of(dtype::f8_e5m2))};
  return tables[static_cast<std::size_t>(std::ranges::find(kTypes, type) - kTypes.begin())];
}

/// The number with its exponent moved by `by`.
std::uint32_t scaled(std::uint32_t value, int by, const type_fields& f) {
  const std::uint32_t mask = ((1u << f.exponent_bits) - 1) << f.mantissa_bits;
  const int exponent = static_cast<int>((value & mask) >> f.mantissa_bits) + by;
  const int top = (1 << f.exponent_bits) - 1;
  return (value & ~mask) | static_cast<std::uint32_t>(std::clamp(exponent, 0, top)) << f.mantissa_bits;
}

int column_scale(std::uint64_t column) {
  prng random(column + 77);
  const double u = (static_cast<double>(random.next() >> 11) + 0.5) * 0x1p-53;
  return static_cast<int>(std::lround(2.5 * std::log(u / (1 - u))));
}

struct generator {
  type_fields f;
  kind k;
  const std::vector<std::uint32_t>& normal;
  std::vector<int> columns;

  [[nodiscard]] std::uint32_t value(std::uint64_t v, prng& random) const {
    const std::uint64_t bits = random.next();
    const std::uint32_t all = static_cast<std::uint32_t>((std::uint64_t{1} << (8 * f.value_bytes)) - 1);
    const std::uint32_t top = ((1u << f.exponent_bits) - 1) << f.mantissa_bits;
    switch (k) {
      case kind::normal:
        return normal[bits >> 48];
      case kind::row_scaled:
        return scaled(normal[bits >> 48], static_cast<int>(v / 512 * 7 % 12) - 6, f);
      case kind::lognormal_columns:
        return scaled(normal[bits >> 48], columns[v % columns.size()], f);
      case kind::uniform_exponents:
        return (static_cast<std::uint32_t>(bits >> 40) & top) | static_cast<std::uint32_t>(bits & 1);
      case kind::uniform_bits:
        return static_cast<std::uint32_t>(bits >> 20) & all;
      case kind::zeros_and_nans: {
        const std::uint32_t sign = static_cast<std::uint32_t>(v / 300 % 2) << (8 * f.value_bytes - 1);
        return sign | (v % 4096 < v / 4096 % 97 * 40 ? top | static_cast<std::uint32_t>(bits & 1) : 0);
      }
      case kind::constant:
        return normal[1];
      case kind::counting:
        break;
    }
    return static_cast<std::uint32_t>(v) & all;
  }
};

template <class Body>
void on_all_cores(std::uint64_t n_blocks, const Body& body) {
  std::atomic<std::uint64_t> next = 0;
  const auto work = [&] {
    for (std::uint64_t block = next++; block < n_blocks; block = next++) body(block);
  };
  std::vector<std::jthread> threads;
  const std::uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  for (std::uint64_t i = 1; i < std::min(cores, n_blocks); ++i) threads.emplace_back(work);
  work();
}

void put_value(bytes& data, std::uint64_t v, std::uint32_t bits, unsigned width) {
  std::memcpy(data.data() + v * width, &bits, width);
}

}  // namespace

static_assert(std::endian::native == std::endian::little, "GPUs and their hosts");

type_fields fields_of(dtype type) noexcept {
  switch (type) {
    case dtype::bf16:
      return {2, 8, 7};
    case dtype::f16:
      return {2, 5, 10};
    case dtype::f8_e4m3:
      return {1, 4, 3};
    default:
      return {1, 5, 2};
  }
}

const char* to_string(kind k) noexcept {
  constexpr const char* kNames[] = {
      "normal",       "row scaled",     "lognormal columns", "uniform exponents",
      "uniform bits", "zeros and NaNs", "constant",          "counting"};
  return kNames[static_cast<int>(k)];
}

bytes make_data(dtype type, std::uint64_t n_values, kind k, std::uint64_t seed) {
  generator g{.f = fields_of(type), .k = k, .normal = normal_table(type), .columns = {}};
  for (std::uint64_t c = 0; c < 640; ++c) g.columns.push_back(column_scale(c));
  bytes data(n_values * g.f.value_bytes);
  on_all_cores((n_values + kBlockValues - 1) / kBlockValues, [&](std::uint64_t block) {
    prng random(seed * 0x9E3779B97F4A7C15U + block * 0xD1342543DE82EF95U);
    const std::uint64_t end = std::min(n_values, (block + 1) * kBlockValues);
    for (std::uint64_t v = block * kBlockValues; v < end; ++v)
      put_value(data, v, g.value(v, random), g.f.value_bytes);
  });
  return data;
}

bytes all_patterns(dtype type, std::uint64_t stride, std::uint64_t most_tiles) {
  const unsigned width = fields_of(type).value_bytes;
  const std::uint64_t patterns = std::uint64_t{1} << (8 * width);
  const std::uint64_t n_tiles = std::min(patterns, most_tiles);
  bytes data(n_tiles * 1024 * width);
  on_all_cores((n_tiles + 63) / 64, [&](std::uint64_t block) {
    for (std::uint64_t t = block * 64; t < std::min(n_tiles, (block + 1) * 64); ++t) {
      for (std::uint64_t v = 0; v < 1024; ++v)
        put_value(data, t * 1024 + v, static_cast<std::uint32_t>((t + stride * v) % patterns), width);
    }
  });
  return data;
}

bytes all_tail_lengths(codec c, dtype type, const tersor::codebook& book, std::uint64_t most_tiles) {
  const type_fields f = fields_of(type);
  const std::uint64_t n_symbols = std::uint64_t{1} << f.exponent_bits;
  std::uint32_t unused = 0;
  const std::size_t entries = c == codec::rank ? 16 : 15;
  while (unused + 1 < n_symbols &&
         std::find(book.symbols.begin(), book.symbols.begin() + static_cast<std::ptrdiff_t>(entries),
                   static_cast<std::uint8_t>(unused)) !=
             book.symbols.begin() + static_cast<std::ptrdiff_t>(entries)) {
    ++unused;
  }
  // The symbols that leave level 1 one, two, three times, and the escape.
  std::vector<std::uint32_t> depths = {unused};
  if (c == codec::rank) depths = {book.symbols[3], book.symbols[6], book.symbols[9], unused};
  const std::uint64_t n_tiles = std::min<std::uint64_t>(depths.size() * 1025, most_tiles);
  bytes data(n_tiles * 1024 * f.value_bytes);
  prng random(5);
  std::array<std::uint16_t, 1024> order;
  for (std::uint16_t v = 0; v < 1024; ++v) order[v] = v;
  for (std::uint64_t tile = 0; tile < n_tiles; ++tile) {
    for (std::uint64_t v = 1023; v > 0; --v) std::swap(order[v], order[random.below(v + 1)]);
    for (std::uint64_t i = 0; i < 1024; ++i) {
      const std::uint32_t symbol = i < tile % 1025 ? depths[tile / 1025] : book.symbols[random.below(3)];
      const auto rest = static_cast<std::uint32_t>(random.next());
      const std::uint32_t sign = (rest >> 31) << (f.exponent_bits + f.mantissa_bits);
      put_value(data, tile * 1024 + order[i],
                sign | symbol << f.mantissa_bits | (rest & ((1u << f.mantissa_bits) - 1)), f.value_bytes);
    }
  }
  return data;
}

std::vector<std::uint32_t> tail_lengths(byte_view frame) {
  const auto info = tersor::inspect(frame);
  std::vector<std::uint32_t> lengths;
  if (!info) return lengths;
  for (std::uint64_t tile = 0; tile < (info->n_values + 1023) / 1024; ++tile)
    lengths.push_back(std::to_integer<std::uint32_t>(frame[128 + tile / 8 * 24 + 16 + tile % 8]));
  return lengths;
}

}  // namespace gpu_test
