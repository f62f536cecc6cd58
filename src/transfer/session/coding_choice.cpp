#include "transfer/session/coding_choice.hpp"

#include <algorithm>

namespace tersor::transfer {
namespace {

constexpr double kKeep = 0.75;  ///< weight of what was known before
/// Parts between two raw ones that find out how fast a link is that never was the slowest stage.
constexpr std::uint32_t kProbeEvery = 32;
constexpr std::uint32_t kProbeParts = 2;
/// What codecs cost on one core before they were measured, and the ratio of BF16.
constexpr double kRawSeconds = 1 / 8e9;
constexpr double kTop16Seconds = 1 / 6e9;
constexpr double kRankSeconds = 1 / 5e9;
/// 10 Gb/s, until the link was measured.
constexpr double kAssumedLink = 1 / 1.25e9;

std::size_t slot_of(codec c) noexcept {
  return static_cast<std::size_t>(c);
}

void blend(double& known, double seen) noexcept {
  if (seen > 0) known = known > 0 ? kKeep * known + (1 - kKeep) * seen : seen;
}

}  // namespace

coding_choice::coding_choice(coding wanted) noexcept
    : wanted_(wanted),
      costs_{{{.encode = kRawSeconds, .decode = kRawSeconds, .ratio = 1},
              {.encode = kTop16Seconds, .decode = kTop16Seconds, .ratio = 1.33},
              {.encode = kRankSeconds, .decode = kRankSeconds, .ratio = 1.45}}} {}

double coding_choice::seconds_per_byte(codec c) const noexcept {
  const stage_costs& s = costs_[slot_of(c)];
  const double link = (link_ > 0 ? link_ : kAssumedLink) / s.ratio;
  return std::max({s.encode, link, s.decode});
}

double coding_choice::link_bytes_per_second() const noexcept {
  return link_ > 0 ? 1 / link_ : 0;
}

codec coding_choice::next(dtype type) noexcept {
  if (wanted_ == coding::raw || !is_codable(type)) return codec::raw;
  if (wanted_ == coding::top16) return codec::top16;
  if (wanted_ == coding::rank) return codec::rank;
  if (link_is_bound_ && ++since_probe_ >= kProbeEvery) {
    if (since_probe_ >= kProbeEvery + kProbeParts) since_probe_ = 0;
    return codec::raw;
  }
  codec best = codec::rank;
  for (const codec c : {codec::top16, codec::raw}) {
    if (seconds_per_byte(c) < seconds_per_byte(best)) best = c;
  }
  return best;
}

void coding_choice::note(const part_sample& sample) noexcept {
  if (sample.raw_bytes == 0 || sample.sent_bytes == 0) return;
  stage_costs& s = costs_[slot_of(sample.code)];
  const auto raw = static_cast<double>(sample.raw_bytes);
  const auto sent = static_cast<double>(sample.sent_bytes);
  blend(s.encode, sample.encode_seconds / raw);
  blend(s.decode, sample.decode_seconds / raw);
  blend(s.ratio, raw / sent);
  if (sample.interval_seconds <= 0) return;
  const double seen = sample.interval_seconds / sent;
  constexpr double kNearlyAll = 0.8;
  const bool other_stage =
      std::max(sample.encode_seconds, sample.decode_seconds) > kNearlyAll * sample.interval_seconds;
  if (!other_stage) {
    if (link_is_bound_) link_ = 0;
    blend(link_, seen);
    link_is_bound_ = false;
  } else if (link_ == 0 || link_is_bound_) {
    link_ = link_ == 0 ? seen : std::min(link_, seen);
    link_is_bound_ = true;
  }
}

}  // namespace tersor::transfer
