// Every payload reader: what it accepts is what the writer writes; manifests become plans that agree with
// themselves.
#include <algorithm>

#include "../transfer/support.hpp"
#include "fuzz_target.hpp"

namespace {

namespace kv = tersor::transfer;
constexpr std::uint32_t kMaxRegions = 300;

template <class T>
void same(const tersor::result<T>& parsed, std::span<const std::byte> payload) {
  if (!parsed) return;
  const auto again = write(*parsed);
  fuzz::require(std::equal(again.begin(), again.end(), payload.begin(), payload.end()));
}

void plans(const kv::beginning& b) {
  const auto plan = kv::part_plan::make(b.manifest, b.part_bytes, {});
  if (!plan) return;
  std::uint64_t total = 0;
  const std::uint64_t n = std::min<std::uint64_t>(plan->n_parts(), 5000);
  for (std::uint64_t i = 0; i < n; ++i) {
    const kv::part p = plan->at(i);
    fuzz::require(plan->find(p.region, p.first_page, p.n_pages) == i);
    fuzz::require(p.n_bytes > 0 && p.n_bytes <= plan->largest_part());
    fuzz::require(p.offset + p.n_bytes <= kv::region_bytes(b.manifest.regions[p.region]).value());
    total += p.n_bytes;
  }
  if (n == plan->n_parts()) fuzz::require(total == plan->total_bytes());
}

}  // namespace

TERSOR_FUZZ_TARGET(transfer_payloads) {
  fuzz::reader in(data);
  const std::uint8_t which = in.byte() % 8;
  const auto payload = fuzz::as_bytes(in.rest());
  switch (which) {
    case 0:
      return same(kv::read_hello(payload), payload);
    case 1:
      return same(kv::read_welcome(payload), payload);
    case 2:
      return same(kv::read_offer(payload), payload);
    case 3:
      return same(kv::read_accept(payload), payload);
    case 4: {
      const auto b = kv::read_beginning(payload, kMaxRegions);
      fuzz::require(!b || payload.size() <= kv::begin_bound(kMaxRegions));
      same(b, payload);
      if (b) plans(*b);
      return;
    }
    case 5: {
      const auto held = kv::read_ready(
          payload, payload.empty() ? 0 : 8 * std::to_integer<std::uint64_t>(payload[0]) % 1000);
      // The bits behind the last part are not looked at.
      if (held) fuzz::require(kv::write_ready(*held).size() == payload.size());
      return;
    }
    case 6:
      return same(kv::read_totals(payload), payload);
    default:
      return same(kv::read_failure(payload), payload);
  }
}
