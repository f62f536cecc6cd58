#include "transfer/session/part_plan.hpp"

#include <algorithm>

#include "codec/digest.hpp"
#include "core/checked.hpp"
#include "transfer/session/wire.hpp"

namespace tersor::transfer {

using core::ceil_div;
using core::checked_add;

result<std::uint64_t> region_bytes(const region& r) {
  if (r.shape.size() > kMaxDims) return fail(errc::invalid_argument, "a region has more than 8 dimensions");
  std::uint64_t n = value_bytes(r.type);
  for (const std::uint64_t dim : r.shape) {
    const auto next = core::checked_mul(n, dim);
    if (!next) return fail(errc::size_overflow, "a region's size leaves 64 bits");
    n = *next;
  }
  return n;
}

result<part_plan> part_plan::make(const manifest& m, std::uint64_t part_bytes, const plan_limits& limits) {
  if (m.note.size() > kMaxNoteBytes) return fail(errc::invalid_argument, "the note is longer than 64 KiB");
  part_plan plan;
  for (const region& r : m.regions) {
    if (r.name.size() > kMaxNameBytes) return fail(errc::invalid_argument, "a region's name is too long");
    TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
    cut c{.first_part = plan.n_parts_, .n_bytes = n_bytes};
    c.page_bytes = r.page_bytes != 0 ? r.page_bytes : value_bytes(r.type);
    if (c.page_bytes % value_bytes(r.type) != 0) {
      return fail(errc::invalid_argument, "pages of region '" + r.name + "' are no whole values");
    }
    c.n_pages = ceil_div(n_bytes, c.page_bytes);
    c.pages_per_part = std::max<std::uint64_t>(part_bytes / c.page_bytes, 1);
    c.n_parts = ceil_div(c.n_pages, c.pages_per_part);
    const auto total = checked_add(plan.total_bytes_, n_bytes);
    if (!total) return fail(errc::size_overflow, "the request's size leaves 64 bits");
    plan.total_bytes_ = *total;
    if (c.n_parts > kMaxParts || plan.n_parts_ + c.n_parts > kMaxParts) {
      return fail(errc::invalid_argument,
                  "the request has more than " + std::to_string(kMaxParts) + " parts");
    }
    plan.n_parts_ += c.n_parts;
    // A part of several pages is no larger than part_bytes, so this product stays in range.
    const std::uint64_t largest = c.pages_per_part == 1 ? c.page_bytes : c.pages_per_part * c.page_bytes;
    plan.largest_part_ = std::max(plan.largest_part_, std::min(largest, n_bytes));
    plan.cuts_.push_back(c);
  }
  if (plan.total_bytes_ > limits.max_request_bytes) {
    return fail(errc::destination_too_small, "the request has " + std::to_string(plan.total_bytes_) +
                                                 " bytes, " + std::to_string(limits.max_request_bytes) +
                                                 " are allowed");
  }
  if (plan.largest_part_ > limits.max_part_bytes) {
    return fail(errc::destination_too_small, "a part has " + std::to_string(plan.largest_part_) + " bytes, " +
                                                 std::to_string(limits.max_part_bytes) + " are allowed");
  }
  return plan;
}

part part_plan::make_part(std::uint32_t region, std::uint64_t part_of_region) const noexcept {
  const cut& c = cuts_[region];
  part p{.region = region, .first_page = part_of_region * c.pages_per_part};
  p.n_pages = std::min(c.pages_per_part, c.n_pages - p.first_page);
  p.offset = p.first_page * c.page_bytes;
  // The last page may be short, and with it the last part.
  p.n_bytes = p.first_page + p.n_pages == c.n_pages ? c.n_bytes - p.offset : p.n_pages * c.page_bytes;
  return p;
}

part part_plan::at(std::uint64_t index) const noexcept {
  const auto after = std::upper_bound(cuts_.begin(), cuts_.end(), index, [](std::uint64_t i, const cut& c) {
    return i < c.first_part + c.n_parts;
  });
  return make_part(static_cast<std::uint32_t>(after - cuts_.begin()), index - after->first_part);
}

std::optional<std::uint64_t> part_plan::find(std::uint32_t region, std::uint64_t first_page,
                                             std::uint64_t n_pages) const noexcept {
  if (region >= cuts_.size()) return std::nullopt;
  const cut& c = cuts_[region];
  if (first_page >= c.n_pages || first_page % c.pages_per_part != 0) return std::nullopt;
  const std::uint64_t part_of_region = first_page / c.pages_per_part;
  if (make_part(region, part_of_region).n_pages != n_pages) return std::nullopt;
  return c.first_part + part_of_region;
}

std::uint64_t part_digest(std::uint64_t index, std::uint64_t frame_digest) noexcept {
  using namespace codec_detail;
  return chain_next(chain_start(digest_domain::message_payload, index), frame_digest);
}

}  // namespace tersor::transfer
