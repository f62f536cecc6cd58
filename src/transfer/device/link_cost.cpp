// Is a link faster raw or coded? Lines through measured points, and the verdicts' meaning. No CUDA in here.
#include <array>
#include <limits>
#include <string>

#include <tersor/device_link.hpp>

namespace tersor::transfer {
namespace {

/// Bytes that 1 GB/s moves in a microsecond.
constexpr double kBytesPerUs = 1000;

struct figures {
  std::string_view device;
  codec code = codec::raw;
  link_cost raw, coded;
};

// Lines through the times of 64 MiB and 1 GiB in bench/results/link-h200.json and link-host-h200.json. Of a
// raw transfer between GPUs, the time to wait for each other is added; of the host's two directions, the
// slower.
constexpr std::array<figures, 2> kPeerLinks = {{
    {"NVIDIA H200", codec::rank, {10, 397}, {32, 540}},
    {"NVIDIA H200", codec::top16, {10, 397}, {30, 489}},
}};
constexpr std::array<figures, 2> kHostLinks = {{
    {"NVIDIA H200", codec::rank, {5, 55.3}, {60, 79.2}},
    {"NVIDIA H200", codec::top16, {5, 55.3}, {70, 71.1}},
}};

std::optional<link_speed> find(const std::array<figures, 2>& known, codec c, std::string_view device_name,
                               link_method method) noexcept {
  for (const figures& one : known) {
    if (one.code == c && one.device == device_name)
      return link_speed{.raw = one.raw, .coded = one.coded, .coded_method = method};
  }
  return std::nullopt;
}

status bad_piece(std::size_t i, const char* step, std::int32_t code, std::uint32_t chunk) {
  error e{.code = static_cast<errc>(code),
          .message = "piece " + std::to_string(i) + ": " + step + ": " +
                     std::string(to_string(static_cast<errc>(code)))};
  if (chunk != cuda::kNoChunk) e.chunk = chunk;
  return tl::unexpected<error>(std::move(e));
}

}  // namespace

std::string_view to_string(link_method m) noexcept {
  constexpr std::array<std::string_view, 5> kNames = {"automatic", "raw", "copy", "pull", "push"};
  const auto i = static_cast<std::size_t>(m);
  return i < kNames.size() ? kNames[i] : "unknown";
}

double link_cost::us(std::uint64_t n_bytes) const noexcept {
  if (!(gb_s > 0)) return std::numeric_limits<double>::infinity();
  return fixed_us + static_cast<double>(n_bytes) / (gb_s * kBytesPerUs);
}

link_method choose_method(std::uint64_t n_bytes, const link_speed& speed, double margin) noexcept {
  const double coded = speed.coded.us(n_bytes);
  // Also raw if either is not a number.
  return coded * (1 + margin) < speed.raw.us(n_bytes) ? speed.coded_method : link_method::raw;
}

std::optional<link_speed> known_link(codec c, std::string_view device_name) noexcept {
  return find(kPeerLinks, c, device_name, link_method::pull);
}

std::optional<link_speed> known_host_link(codec c, std::string_view device_name) noexcept {
  return find(kHostLinks, c, device_name, link_method::copy);
}

status check_verdicts(std::span<const link_verdict> verdicts) {
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    const link_verdict& v = verdicts[i];
    if (v.sent.code != 0) return bad_piece(i, "encoding", v.sent.code, v.sent.chunk);
    if (v.received.code != 0) return bad_piece(i, "decoding", v.received.code, v.received.chunk);
    if (v.again.code != 0) return bad_piece(i, "checking again", v.again.code, v.again.chunk);
    // A frame of an earlier transfer, whole and well, is not what was sent.
    if (v.sent.digest != v.received.digest || v.sent.frame_bytes != v.received.frame_bytes)
      return fail(errc::mismatch, "piece " + std::to_string(i) + ": another frame arrived than was sent");
  }
  return {};
}

}  // namespace tersor::transfer
