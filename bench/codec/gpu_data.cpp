#include "gpu_data.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

namespace tersor::bench {
namespace {

struct small_float {
  unsigned exponent_bits, mantissa_bits;
  std::uint32_t largest;  ///< finite, without its sign
};

small_float layout_of(dtype type) noexcept {
  switch (type) {
    case dtype::f16:
      return {5, 10, 0x7bff};
    case dtype::f8_e4m3:
      return {4, 3, 0x7e};
    case dtype::f8_e5m2:
      return {5, 2, 0x7b};
    default:
      return {8, 7, 0x7f7f};
  }
}

std::uint64_t mix(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// Two normal values that depend on `salt` and `i` alone, so that threads can begin anywhere.
struct normal_pair {
  float first, second;
  normal_pair(std::uint64_t salt, std::uint64_t i) noexcept {
    const std::uint64_t bits = mix((i + 1) * 0x9e3779b97f4a7c15 + mix(salt));
    const float u = (static_cast<float>(bits >> 40) + 1.0F) * 0x1p-24F;
    const float v = static_cast<float>(bits & 0xffffff) * 0x1p-24F;
    const float radius = std::sqrt(-2.0F * std::log(u));
    const float angle = 2.0F * std::numbers::pi_v<float> * v;
    first = radius * std::cos(angle);
    second = radius * std::sin(angle);
  }
};

constexpr std::uint64_t kValueSalt = 1, kRowSalt = 2, kColumnSalt = 3;

struct generator {
  synthetic_kind kind;
  dtype type;
  std::uint64_t columns;
  std::vector<float> column_scale;

  void fill_row(std::uint64_t row, std::byte* dst) const noexcept {
    const float row_scale =
        kind == synthetic_kind::row_scaled ? std::exp(0.5F * normal_pair(kRowSalt, row).first) : 1.0F;
    const std::uint32_t size = value_bytes(type);
    for (std::uint64_t column = 0; column < columns; column += 2) {
      const normal_pair pair(kValueSalt, (row * columns + column) / 2 + row);
      const float values[2] = {pair.first, pair.second};
      for (std::uint64_t k = 0; k < std::min<std::uint64_t>(2, columns - column); ++k) {
        const std::uint64_t at = column + k;
        const float scale = column_scale.empty() ? row_scale : column_scale[at];
        const std::uint16_t code = round_to(type, values[k] * scale);
        const std::uint8_t little[2] = {static_cast<std::uint8_t>(code),
                                        static_cast<std::uint8_t>(code >> 8)};
        std::memcpy(dst + at * size, little, size);
      }
    }
  }
};

}  // namespace

std::optional<synthetic_kind> parse_synthetic(std::string_view name) noexcept {
  if (name == "normal") return synthetic_kind::normal;
  if (name == "lognormal-columns") return synthetic_kind::lognormal_columns;
  if (name == "row-scaled") return synthetic_kind::row_scaled;
  return std::nullopt;
}

std::uint16_t round_to(dtype type, float value) noexcept {
  const small_float f = layout_of(type);
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 31 << (f.exponent_bits + f.mantissa_bits);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  const std::uint32_t bias = (1U << (f.exponent_bits - 1)) - 1;
  std::uint32_t code = 0;
  if (magnitude >> 23 > 127 - bias) {
    const std::uint32_t shift = 23 - f.mantissa_bits;
    const std::uint32_t rebiased = magnitude - ((127 - bias) << 23);
    code = (rebiased + (1U << (shift - 1)) - 1 + (rebiased >> shift & 1)) >> shift;
  } else {
    const float scaled =
        std::ldexp(std::bit_cast<float>(magnitude), static_cast<int>(bias + f.mantissa_bits) - 1);
    code = static_cast<std::uint32_t>(std::nearbyint(scaled));
  }
  return static_cast<std::uint16_t>(sign | std::min(code, f.largest));
}

workload make_synthetic(core::thread_pool& pool, synthetic_kind kind, dtype type, std::uint64_t rows,
                        std::uint64_t columns) {
  constexpr std::string_view kNames[] = {"normal", "lognormal-columns", "row-scaled"};
  workload work{.data = std::string(kNames[static_cast<int>(kind)]), .type = type};
  const std::uint64_t row_bytes = columns * value_bytes(type);
  work.bytes.resize(rows * row_bytes);
  work.segments = {{.offset = 0, .n_bytes = rows * row_bytes}};
  work.shape = {rows, columns};
  generator make{.kind = kind, .type = type, .columns = columns, .column_scale = {}};
  if (kind == synthetic_kind::lognormal_columns) {
    for (std::uint64_t c = 0; c < columns; ++c) {
      make.column_scale.push_back(std::exp(normal_pair(kColumnSalt, c).first));
    }
  }
  pool.run(pool.size(), [&](unsigned worker) {
    const std::uint64_t begin = rows * worker / pool.size(), end = rows * (worker + 1) / pool.size();
    for (std::uint64_t row = begin; row < end; ++row) make.fill_row(row, work.bytes.data() + row * row_bytes);
  });
  return work;
}

result<workload> make_from_input(const std::filesystem::path& path, const std::vector<bench_tensor>& tensors,
                                 std::uint64_t n_bytes) {
  workload work{.data = path.filename().string()};
  if (work.data.empty()) work.data = path.parent_path().filename().string();
  work.bytes.resize(n_bytes);
  work.segments = tile_by_tensor(tensors, work.bytes);
  if (work.segments.empty()) return fail(errc::invalid_argument, "the input leaves nothing to measure");
  return work;
}

}  // namespace tersor::bench
