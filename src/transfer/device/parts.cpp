#include "transfer/device/parts.hpp"

#include <algorithm>

#include "core/checked.hpp"

namespace tersor::transfer::device {
namespace {

/// What a frame's sections and its last, partial chunk may take beyond the bound of its share of the values.
constexpr std::uint64_t kPieceSlack = 32 * 1024;

class cutter {
 public:
  cutter(std::span<const link_region> regions, const part_rule& rule, std::uint64_t total)
      : regions_(regions), rule_(rule), left_(total) {
    slot_ = slot_bytes(rule.code, rule.type, rule.sizes);
    value_bytes_ = value_bytes(rule.type);
    plan_.n_bytes = total;
  }

  result<part_plan> run() {
    std::uint64_t target = rule_.growth == 0 ? rule_.sizes.most_bytes : rule_.sizes.first_bytes;
    while (left_ != 0) {
      std::uint64_t now = target;
      if (rule_.taper) now = std::min(now, std::max(rule_.sizes.first_bytes, left_ / 2));
      TERSOR_CHECK(fill_part(now));
      target = std::min(std::max(rule_.growth, 1U) * target, rule_.sizes.most_bytes);
    }
    return std::move(plan_);
  }

 private:
  status fill_part(std::uint64_t target) {
    part one{.first_piece = plan_.pieces.size(), .n_pieces = 0};
    std::uint64_t bytes = 0, at = 0;
    while (left_ != 0 && bytes < target && one.n_pieces < kMostPieces) {
      while (first_ == regions_[region_].n_values) {
        ++region_;
        first_ = 0;
      }
      const std::uint64_t values = share(target - bytes);
      const std::uint64_t capacity =
          core::align_up(cuda::encode_bound(rule_.code, rule_.type, values), kFrameAlignment);
      if (capacity == 0 || capacity > slot_ - at) break;
      plan_.pieces.push_back({.region = region_,
                              .first_value = first_,
                              .n_values = values,
                              .slot_at = at,
                              .store_at = plan_.store_bytes,
                              .capacity = capacity});
      at += capacity;
      plan_.store_bytes += capacity;
      bytes += values * value_bytes_;
      left_ -= values * value_bytes_;
      first_ += values;
      ++one.n_pieces;
    }
    if (one.n_pieces == 0) return fail(errc::internal, "a part of a transfer holds no piece");
    plan_.parts.push_back(one);
    return {};
  }

  /// Values of the region that go into a part with `room` bytes left: whole chunks, and no crumb left over.
  [[nodiscard]] std::uint64_t share(std::uint64_t room) const {
    const std::uint64_t rest = regions_[region_].n_values - first_;
    const std::uint64_t wanted = core::ceil_div(core::ceil_div(room, value_bytes_), kCutValues) * kCutValues;
    if (rest <= wanted) return rest;
    return rest - wanted < rule_.sizes.first_bytes / (2 * value_bytes_) ? rest : wanted;
  }

  std::span<const link_region> regions_;
  const part_rule& rule_;
  std::uint64_t left_, slot_ = 0, value_bytes_ = 1;
  std::uint32_t region_ = 0;
  std::uint64_t first_ = 0;
  part_plan plan_;
};

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;

}  // namespace

std::uint64_t slot_bytes(codec c, dtype type, const part_sizes& sizes) noexcept {
  if (sizes.most_bytes > kMostBytes || sizes.first_bytes > sizes.most_bytes) return 0;
  const std::uint64_t values = (sizes.most_bytes + sizes.first_bytes) / value_bytes(type) + 2 * kCutValues;
  const std::uint64_t bound = cuda::encode_bound(c, type, values);
  return bound == 0 ? 0 : core::align_up(bound, kFrameAlignment) + kMostPieces * kPieceSlack;
}

status check_rule(const part_rule& rule) {
  if (cuda::encode_bound(rule.code, rule.type, 1) == 0)
    return fail(errc::unsupported, "a link codes bf16, f16, f8_e4m3 and f8_e5m2 with rank and top16");
  const part_sizes& s = rule.sizes;
  if (s.first_bytes < kCutValues * value_bytes(rule.type) || s.most_bytes < s.first_bytes ||
      s.most_bytes > kMostBytes || s.n_slots == 0 || s.n_slots > 64) {
    return fail(errc::invalid_argument,
                "parts hold at least a chunk and at most 2^40 bytes, grow, and have 1 to 64 slots");
  }
  return {};
}

part_rule rule_of(link_method method, codec c, dtype type, const part_sizes& sizes) noexcept {
  return {.code = c,
          .type = type,
          .sizes = sizes,
          .growth = method == link_method::push ? 0U : 2U,
          .taper = method != link_method::pull};
}

result<part_plan> plan_parts(std::span<const link_region> regions, const part_rule& rule) {
  TERSOR_CHECK(check_rule(rule));
  std::uint64_t total = 0;
  for (const link_region& region : regions) {
    const auto bytes = core::checked_mul(region.n_values, value_bytes(rule.type));
    const auto sum = bytes ? core::checked_add(total, *bytes) : std::nullopt;
    if (!sum || *sum >> 50 != 0) return fail(errc::size_overflow, "regions of more than 2^50 bytes");
    total = *sum;
  }
  return cutter(regions, rule, total).run();
}

std::vector<raw_run> merge_runs(std::span<const link_region> regions, dtype type) {
  std::vector<raw_run> runs;
  for (const link_region& region : regions) {
    const std::uint64_t n = region.n_values * value_bytes(type);
    if (n == 0) continue;
    if (!runs.empty()) {
      raw_run& last = runs.back();
      if (static_cast<const std::byte*>(last.src) + last.n_bytes == region.src &&
          static_cast<std::byte*>(last.dst) + last.n_bytes == region.dst) {
        last.n_bytes += n;
        continue;
      }
    }
    runs.push_back({region.src, region.dst, n});
  }
  return runs;
}

}  // namespace tersor::transfer::device

namespace tersor::transfer {

std::uint64_t staging_bytes(codec c, dtype type, const part_sizes& sizes) noexcept {
  const auto bytes = core::checked_mul(device::slot_bytes(c, type, sizes), sizes.n_slots);
  return bytes ? *bytes : 0;
}

}  // namespace tersor::transfer
