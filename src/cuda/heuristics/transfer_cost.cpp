// Does encoding pay? A linear model of time over bytes, from two measured points per codec and GPU.
#include <array>
#include <limits>

#include <tersor/cuda.hpp>

namespace tersor::cuda::kv {
namespace {

/// Microseconds that BF16 data took.
struct measured {
  double small_us = 0;  ///< 2 MiB
  double large_us = 0;  ///< 512 MiB
};

struct device_figures {
  std::string_view device;
  codec code = codec::raw;
  measured encode, decode;
  double ratio = 1;
};

// bench/results/codec-h200.json and codec-h100.json: latency of plain calls at 2 MiB, speed of BF16 "normal"
// at 512 MiB; ratios on a real KV cache (codec-h200-kv.json).
constexpr std::array<device_figures, 4> kFigures = {{
    {"NVIDIA H200", codec::rank, {9.07, 281.88}, {9.75, 264.89}, 1.487},
    {"NVIDIA H200", codec::top16, {8.43, 254.64}, {8.99, 258.39}, 1.33},
    {"NVIDIA H100 80GB HBM3", codec::rank, {9.60, 329.59}, {10.22, 334.45}, 1.487},
    {"NVIDIA H100 80GB HBM3", codec::top16, {8.95, 340.15}, {9.53, 345.16}, 1.33},
}};

constexpr double kSmallBytes = 2.0 * 1024 * 1024;
constexpr double kLargeBytes = 512.0 * 1024 * 1024;
/// Bytes that 1 GB/s moves in a microsecond.
constexpr double kBytesPerUs = 1000;

constexpr double gb_s(const measured& m) noexcept {
  return (kLargeBytes - kSmallBytes) / (m.large_us - m.small_us) / kBytesPerUs;
}
constexpr double fixed_us(const measured& m) noexcept {
  return m.small_us - kSmallBytes / (gb_s(m) * kBytesPerUs);
}

/// The name itself, or the name with a suffix: "NVIDIA H200 NVL".
bool names_device(std::string_view name, std::string_view known) noexcept {
  return name.starts_with(known) && (name.size() == known.size() || name[known.size()] == ' ');
}

/// Infinite for a speed that is not positive, and for NaN.
double moving_us(double n_bytes, double speed_gb_s) noexcept {
  if (!(speed_gb_s > 0)) return std::numeric_limits<double>::infinity();
  return n_bytes / (speed_gb_s * kBytesPerUs);
}

}  // namespace

std::optional<codec_speed> known_speed(codec c, std::string_view device_name) noexcept {
  for (const device_figures& known : kFigures) {
    if (known.code != c || !names_device(device_name, known.device)) continue;
    return codec_speed{.encode_gb_s = gb_s(known.encode),
                       .decode_gb_s = gb_s(known.decode),
                       .encode_us = fixed_us(known.encode),
                       .decode_us = fixed_us(known.decode),
                       .ratio = known.ratio};
  }
  return std::nullopt;
}

transfer_cost estimate_transfer(std::uint64_t n_bytes, double link_gb_s, const codec_speed& speed) noexcept {
  const auto plain = static_cast<double>(n_bytes);
  const double encoded = speed.ratio > 0 ? plain / speed.ratio : std::numeric_limits<double>::infinity();
  transfer_cost cost;
  cost.plain_us = moving_us(plain, link_gb_s);
  cost.encoded_us = speed.encode_us + moving_us(plain, speed.encode_gb_s) + moving_us(encoded, link_gb_s) +
                    moving_us(plain, speed.decode_gb_s) + speed.decode_us;
  return cost;
}

bool worth_it(std::uint64_t n_bytes, double link_gb_s, const codec_speed& speed) noexcept {
  if (!(link_gb_s > 0)) return false;
  const transfer_cost cost = estimate_transfer(n_bytes, link_gb_s, speed);
  return cost.encoded_us < cost.plain_us;
}

bool worth_it(std::uint64_t n_bytes, double link_gb_s, codec c, std::string_view device_name) noexcept {
  const auto speed = known_speed(c, device_name);
  return speed && worth_it(n_bytes, link_gb_s, *speed);
}

}  // namespace tersor::cuda::kv
