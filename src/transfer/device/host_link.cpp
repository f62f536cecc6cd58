// GPU to pinned host memory and back. Storing: encode, then copy (or encode straight into host memory).
// Loading: the frames' sizes are known by then, so copies are exact; or decode straight out of host memory.
#include <algorithm>

#include "transfer/device/side.hpp"

namespace tersor::transfer {

using namespace device;

namespace {

// Copy engines take microseconds to start: kernels write and read frames of smaller pieces in host memory.
// They write faster than they read.
constexpr std::uint64_t kStoreEngineBytes = (std::uint64_t{4} << 20) + 1;
constexpr std::uint64_t kLoadEngineBytes = std::uint64_t{2} << 20;

}  // namespace

struct host_link::impl {
  host_link_options options;
  std::optional<link_speed> speed;
  std::uint64_t slot_size = 0;
  memory slots_memory;
  side gpu;
  std::vector<own_event> filled, freed;
  std::uint64_t turns = 0;

  [[nodiscard]] part_rule rule() const {
    // Encoding is many times faster than the bus. One cut for all methods, because a load must find what a
    // store wrote.
    return {.code = options.codec, .type = options.type, .sizes = options.parts, .growth = 4};
  }
  [[nodiscard]] frames_at slot_of(std::uint32_t i) const {
    return {static_cast<std::byte*>(slots_memory.get()) + i * slot_size};
  }
  [[nodiscard]] status store_part(const job& j, const part& p, const frames_at& to, bool push);
  [[nodiscard]] status load_part(const job& j, const part& p, const frames_at& from, bool pull);
};

host_link::host_link(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
host_link::host_link(host_link&&) noexcept = default;
host_link& host_link::operator=(host_link&&) noexcept = default;

host_link::~host_link() {
  // Nothing under way may outlive the staging memory; an error would be the caller's next call's.
  if (impl_ != nullptr) static_cast<void>(impl_->gpu.wait_for_all());
}

result<host_link> host_link::create(const host_link_options& options) {
  auto link = std::make_unique<impl>();
  link->options = options;
  TERSOR_CHECK(check_rule(link->rule()));
  link->slot_size = slot_bytes(options.codec, options.type, options.parts);
  TERSOR_TRY(link->gpu, side::create(options.device));
  const on_device here(options.device);
  TERSOR_CHECK(here.good());
  TERSOR_TRY(link->slots_memory, make_memory(link->slot_size * options.parts.n_slots));
  TERSOR_TRY(link->filled, make_events(options.parts.n_slots));
  TERSOR_TRY(link->freed, make_events(options.parts.n_slots));
  cudaDeviceProp properties{};
  TERSOR_CHECK(ok(cudaGetDeviceProperties(&properties, options.device), "device properties"));
  link->speed = options.speed ? options.speed : known_host_link(options.codec, properties.name);
  return host_link(std::move(link));
}

link_method host_link::choose(std::uint64_t n_bytes) const noexcept {
  return impl_->speed ? choose_method(n_bytes, *impl_->speed) : link_method::raw;
}

result<std::uint64_t> host_link::count_pieces(std::span<const link_region> regions) const {
  TERSOR_TRY(const part_plan plan, plan_parts(regions, impl_->rule()));
  return plan.pieces.size();
}

result<std::uint64_t> host_link::store_bytes(std::span<const link_region> regions) const {
  TERSOR_TRY(const part_plan plan, plan_parts(regions, impl_->rule()));
  // A frame's bound is more than its values, so this also holds them raw.
  return plan.store_bytes;
}

namespace {

status check_call(const part_plan& plan, const host_store& store, std::span<const link_verdict> verdicts) {
  if (store.data == nullptr || reinterpret_cast<std::uintptr_t>(store.data) % kFrameAlignment != 0)
    return fail(errc::invalid_argument, "the store's address is null or not 128-byte aligned");
  if (store.n_bytes < plan.store_bytes) {
    return fail(errc::destination_too_small, "the store has " + std::to_string(store.n_bytes) + " bytes, " +
                                                 std::to_string(plan.store_bytes) + " are needed");
  }
  if (verdicts.size() < plan.pieces.size()) {
    return fail(errc::invalid_argument, std::to_string(plan.pieces.size()) +
                                            " verdicts are needed, there are " +
                                            std::to_string(verdicts.size()));
  }
  return {};
}

/// Raw values in a store lie one region behind the other.
std::vector<raw_run> raw_runs(std::span<const link_region> regions, dtype type, const host_store& store,
                              bool loads) {
  std::vector<link_region> placed(regions.begin(), regions.end());
  auto* at = static_cast<std::byte*>(store.data);
  for (link_region& region : placed) {
    if (loads) {
      region.src = at;
    } else {
      region.dst = at;
    }
    at += region.n_values * value_bytes(type);
  }
  return merge_runs(placed, type);
}

}  // namespace

status host_link::impl::store_part(const job& j, const part& p, const frames_at& to, bool push) {
  if (push || has_small_pieces(j, p, kStoreEngineBytes)) return encode_part(j, p, to, gpu, lane_of(turns));
  const auto slot = static_cast<std::uint32_t>(turns % options.parts.n_slots);
  const frames_at from = slot_of(slot);
  TERSOR_CHECK(wait(gpu.lane(0), freed[slot]));
  TERSOR_CHECK(encode_part(j, p, from, gpu, 0));
  TERSOR_CHECK(record(filled[slot], gpu.lane(0)));
  const cudaStream_t copies = gpu.lane(lane_of(turns));
  TERSOR_CHECK(wait(copies, filled[slot]));
  TERSOR_CHECK(copy_frames(j, p, from, to, copies));
  return record(freed[slot], copies);
}

status host_link::impl::load_part(const job& j, const part& p, const frames_at& from, bool pull) {
  if (pull || has_small_pieces(j, p, kLoadEngineBytes))
    return decode_part(j, p, from, true, gpu, lane_of(turns));
  const auto slot = static_cast<std::uint32_t>(turns % options.parts.n_slots);
  const frames_at to = slot_of(slot);
  const cudaStream_t copies = gpu.lane(lane_of(turns));
  TERSOR_CHECK(wait(copies, freed[slot]));
  for (std::size_t i = 0; i < p.n_pieces; ++i) {
    const piece& one = j.pieces(p)[i];
    const std::uint64_t n = std::min(j.verdict_of(p)[i].sent.frame_bytes, one.capacity);
    TERSOR_CHECK(
        ok(cudaMemcpyAsync(to.of(one), from.of(one), n, cudaMemcpyHostToDevice, copies), "loading frames"));
  }
  TERSOR_CHECK(record(filled[slot], copies));
  TERSOR_CHECK(wait(gpu.lane(0), filled[slot]));
  TERSOR_CHECK(decode_part(j, p, to, true, gpu, 0));
  return record(freed[slot], gpu.lane(0));
}

result<link_method> host_link::store_async(std::span<const link_region> regions, link_method method,
                                           const host_store& to, std::span<link_verdict> verdicts,
                                           cuda::stream s) {
  impl& link = *impl_;
  TERSOR_TRY(const part_plan plan, plan_parts(regions, link.rule()));
  TERSOR_CHECK(check_call(plan, to, verdicts));
  if (method == link_method::automatic) method = choose(plan.n_bytes);
  if (method == link_method::pull) return fail(errc::unsupported, "host memory does not pull");
  const bool coded = method != link_method::raw;
  reset_sent(verdicts, coded ? plan.pieces.size() : 0);
  reset_received(verdicts, 0, false);
  const auto used = verdicts.first(plan.pieces.size());
  const on_device here(link.options.device);
  TERSOR_CHECK(here.good());
  if (!coded) {
    TERSOR_CHECK(copy_raw(raw_runs(regions, link.options.type, to, false), s));
    return method;
  }
  const job j{.regions = regions,
              .plan = plan,
              .verdicts = used,
              .code = link.options.codec,
              .type = link.options.type};
  const frames_at frames{static_cast<std::byte*>(to.data), true};
  TERSOR_CHECK(link.gpu.begin(s));
  status last = {};
  for (const part& p : plan.parts) {
    last = link.store_part(j, p, frames, method == link_method::push);
    ++link.turns;
    if (!last) break;
  }
  TERSOR_CHECK(link.gpu.end());
  TERSOR_CHECK(last);
  return method;
}

status host_link::load_async(std::span<const link_region> regions, link_method method, const host_store& from,
                             std::span<link_verdict> verdicts, cuda::stream s) {
  impl& link = *impl_;
  TERSOR_TRY(const part_plan plan, plan_parts(regions, link.rule()));
  TERSOR_CHECK(check_call(plan, from, verdicts));
  const auto used = verdicts.first(plan.pieces.size());
  const on_device here(link.options.device);
  TERSOR_CHECK(here.good());
  if (method == link_method::automatic)
    return fail(errc::invalid_argument, "a load takes the method that its store returned");
  const bool coded = method != link_method::raw;
  for (const link_verdict& verdict : used) {
    if (verdict.sent.code != 0 || (coded && verdict.sent.frame_bytes == 0))
      return fail(errc::invalid_argument, "the store did not end well, or has not ended");
  }
  reset_received(verdicts, coded ? plan.pieces.size() : 0, link.options.recheck);
  if (!coded) return copy_raw(raw_runs(regions, link.options.type, from, true), s);
  const job j{.regions = regions,
              .plan = plan,
              .verdicts = used,
              .code = link.options.codec,
              .type = link.options.type,
              .recheck = link.options.recheck};
  const frames_at frames{static_cast<std::byte*>(from.data), true};
  TERSOR_CHECK(link.gpu.begin(s));
  status last = {};
  for (const part& p : plan.parts) {
    last = link.load_part(j, p, frames, method == link_method::pull);
    ++link.turns;
    if (!last) break;
  }
  TERSOR_CHECK(link.gpu.end());
  return last;
}

}  // namespace tersor::transfer
