// GPU to GPU: who waits for whom. A slot holds the frames of one part; its events: `encoded` when the frames
// are whole where the encoder put them, `arrived` when copies of them are whole at the target, `freed` when
// nobody reads them any more.
#include <algorithm>

#include "transfer/device/side.hpp"

namespace tersor::transfer {

using namespace device;

struct device_link::impl {
  device_link_options options;
  std::optional<link_speed> speed;
  std::uint64_t slot_size = 0;
  memory source_memory, target_memory;
  std::byte* source_slots = nullptr;
  std::byte* target_slots = nullptr;
  side source, target;
  std::vector<own_event> encoded, arrived;  ///< on the source
  std::vector<own_event> freed;             ///< on the target
  own_event target_ready, sent;
  std::uint64_t turns = 0;  ///< parts sent so far

  [[nodiscard]] part_rule rule(link_method method) const {
    return rule_of(method, options.codec, options.type, options.parts);
  }
  [[nodiscard]] frames_at source_slot(std::uint32_t i) const { return {source_slots + i * slot_size}; }
  [[nodiscard]] frames_at target_slot(std::uint32_t i) const { return {target_slots + i * slot_size}; }

  [[nodiscard]] status allocate_source();
  [[nodiscard]] status allocate_target();
  [[nodiscard]] status send_raw(std::span<const link_region> regions, cudaStream_t from, cudaStream_t to);
  [[nodiscard]] status send_coded(const job& j, link_method method, cudaStream_t from, cudaStream_t to);
  [[nodiscard]] status pull_part(const job& j, const part& p);
  [[nodiscard]] status push_part(const job& j, const part& p);
  [[nodiscard]] status copy_part(const job& j, const part& p);
  [[nodiscard]] status decode_here(const job& j, const part& p, const frames_at& frames, std::uint32_t slot,
                                   const own_event& ready);
};

namespace {

/// Copy engines take microseconds to start: pieces of fewer bytes of values are pushed, whatever was asked
/// for.
constexpr std::uint64_t kEngineBytes = (std::uint64_t{16} << 20) + 1;

status enable_peer(int here, int there) {
  const on_device device(here);
  TERSOR_CHECK(device.good());
  int possible = 0;
  TERSOR_CHECK(ok(cudaDeviceCanAccessPeer(&possible, here, there), "peer access"));
  if (possible == 0) {
    return fail(errc::unsupported, "device " + std::to_string(here) + " cannot reach the memory of device " +
                                       std::to_string(there));
  }
  const cudaError_t code = cudaDeviceEnablePeerAccess(there, 0);
  if (code != cudaErrorPeerAccessAlreadyEnabled) return ok(code, "peer access");
  static_cast<void>(cudaGetLastError());
  return {};
}

result<std::string> name_of(int device) {
  cudaDeviceProp properties{};
  TERSOR_CHECK(ok(cudaGetDeviceProperties(&properties, device), "device properties"));
  return std::string(properties.name);
}

status check_staging(const void* memory) {
  if (reinterpret_cast<std::uintptr_t>(memory) % kFrameAlignment == 0) return {};
  return fail(errc::invalid_argument, "staging memory is not 128-byte aligned");
}

}  // namespace

status device_link::impl::allocate_source() {
  const on_device here(options.source_device);
  TERSOR_CHECK(here.good());
  TERSOR_CHECK(check_staging(options.source_staging));
  source_slots = static_cast<std::byte*>(options.source_staging);
  if (source_slots == nullptr && (options.use_pull || options.use_copy)) {
    TERSOR_TRY(source_memory, make_memory(slot_size * options.parts.n_slots));
    source_slots = static_cast<std::byte*>(source_memory.get());
  }
  TERSOR_TRY(encoded, make_events(options.parts.n_slots));
  TERSOR_TRY(arrived, make_events(options.parts.n_slots));
  TERSOR_TRY(sent, make_event());
  return {};
}

status device_link::impl::allocate_target() {
  const on_device here(options.target_device);
  TERSOR_CHECK(here.good());
  TERSOR_CHECK(check_staging(options.target_staging));
  target_slots = static_cast<std::byte*>(options.target_staging);
  if (target_slots == nullptr && (options.use_push || options.use_copy)) {
    TERSOR_TRY(target_memory, make_memory(slot_size * options.parts.n_slots));
    target_slots = static_cast<std::byte*>(target_memory.get());
  }
  TERSOR_TRY(freed, make_events(options.parts.n_slots));
  TERSOR_TRY(target_ready, make_event());
  return {};
}

result<device_link> device_link::create(const device_link_options& options) {
  if (options.source_device == options.target_device)
    return fail(errc::invalid_argument, "a link joins two devices");
  auto link = std::make_unique<impl>();
  link->options = options;
  TERSOR_CHECK(check_rule(link->rule(link_method::pull)));
  link->slot_size = slot_bytes(options.codec, options.type, options.parts);
  TERSOR_CHECK(enable_peer(options.source_device, options.target_device));
  TERSOR_CHECK(enable_peer(options.target_device, options.source_device));
  TERSOR_TRY(link->source, side::create(options.source_device));
  TERSOR_TRY(link->target, side::create(options.target_device));
  TERSOR_CHECK(link->allocate_source());
  TERSOR_CHECK(link->allocate_target());
  TERSOR_TRY(const std::string name, name_of(options.source_device));
  TERSOR_TRY(const std::string other, name_of(options.target_device));
  link->speed = options.speed;
  if (!link->speed && name == other) link->speed = known_link(options.codec, name);
  return device_link(std::move(link));
}

device_link::device_link(std::unique_ptr<impl> p) noexcept : impl_(std::move(p)) {}
device_link::device_link(device_link&&) noexcept = default;
device_link& device_link::operator=(device_link&&) noexcept = default;

device_link::~device_link() {
  if (impl_ == nullptr) return;
  // Nothing under way may outlive the staging memory; an error would be the caller's next call's.
  static_cast<void>(impl_->source.wait_for_all());
  static_cast<void>(impl_->target.wait_for_all());
}

link_method device_link::choose(std::uint64_t n_bytes) const noexcept {
  return impl_->speed ? choose_method(n_bytes, *impl_->speed) : link_method::raw;
}

result<std::uint64_t> device_link::count_pieces(std::span<const link_region> regions) const {
  std::uint64_t most = 0;
  for (const link_method method : {link_method::pull, link_method::push, link_method::copy}) {
    TERSOR_TRY(const part_plan plan, plan_parts(regions, impl_->rule(method)));
    most = std::max<std::uint64_t>(most, plan.pieces.size());
  }
  return most;
}

/// The target decodes the frames of a slot once they are `ready`.
status device_link::impl::decode_here(const job& j, const part& p, const frames_at& frames,
                                      std::uint32_t slot, const own_event& ready) {
  const on_device here(options.target_device);
  TERSOR_CHECK(here.good());
  const std::uint32_t lane = lane_of(turns);
  TERSOR_CHECK(wait(target.lane(lane), ready));
  TERSOR_CHECK(decode_part(j, p, frames, false, target, lane));
  return record(freed[slot], target.lane(lane));
}

status device_link::impl::pull_part(const job& j, const part& p) {
  const auto slot = static_cast<std::uint32_t>(turns % options.parts.n_slots);
  {
    const on_device here(options.source_device);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(wait(source.lane(0), freed[slot]));
    TERSOR_CHECK(encode_part(j, p, source_slot(slot), source, 0));
    TERSOR_CHECK(record(encoded[slot], source.lane(0)));
  }
  return decode_here(j, p, source_slot(slot), slot, encoded[slot]);
}

status device_link::impl::push_part(const job& j, const part& p) {
  const auto slot = static_cast<std::uint32_t>(turns % options.parts.n_slots);
  const std::uint32_t lane = lane_of(turns);
  {
    const on_device here(options.source_device);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(wait(source.lane(lane), freed[slot]));
    TERSOR_CHECK(encode_part(j, p, target_slot(slot), source, lane));
    TERSOR_CHECK(record(encoded[slot], source.lane(lane)));
  }
  return decode_here(j, p, target_slot(slot), slot, encoded[slot]);
}

status device_link::impl::copy_part(const job& j, const part& p) {
  if (has_small_pieces(j, p, kEngineBytes)) return push_part(j, p);
  const auto slot = static_cast<std::uint32_t>(turns % options.parts.n_slots);
  {
    const on_device here(options.source_device);
    TERSOR_CHECK(here.good());
    const frames_at from = source_slot(slot), to = target_slot(slot);
    TERSOR_CHECK(wait(source.lane(0), freed[slot]));
    TERSOR_CHECK(encode_part(j, p, from, source, 0));
    TERSOR_CHECK(record(encoded[slot], source.lane(0)));
    const cudaStream_t copies = source.lane(lane_of(turns));
    TERSOR_CHECK(wait(copies, encoded[slot]));
    TERSOR_CHECK(copy_frames(j, p, from, to, copies));
    TERSOR_CHECK(record(arrived[slot], copies));
  }
  return decode_here(j, p, target_slot(slot), slot, arrived[slot]);
}

status device_link::impl::send_coded(const job& j, link_method method, cudaStream_t from, cudaStream_t to) {
  {
    const on_device here(options.target_device);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(target.begin(to));
  }
  {
    const on_device here(options.source_device);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(source.begin(from));
  }
  status last = {};
  for (const part& p : j.plan.parts) {
    last = method == link_method::pull   ? pull_part(j, p)
           : method == link_method::push ? push_part(j, p)
                                         : copy_part(j, p);
    ++turns;
    if (!last) break;
  }
  {
    const on_device here(options.target_device);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(target.end());
  }
  const on_device here(options.source_device);
  TERSOR_CHECK(here.good());
  TERSOR_CHECK(source.end());
  return last;
}

status device_link::impl::send_raw(std::span<const link_region> regions, cudaStream_t from, cudaStream_t to) {
  // An event across devices takes as long as a small copy: not where nothing is to be waited for.
  const bool busy = cudaStreamQuery(to) != cudaSuccess;
  if (busy) {
    static_cast<void>(cudaGetLastError());
    const on_device here(options.target_device);
    TERSOR_CHECK(here.good());
    TERSOR_CHECK(record(target_ready, to));
  }
  {
    const on_device here(options.source_device);
    TERSOR_CHECK(here.good());
    if (busy) TERSOR_CHECK(wait(from, target_ready));
    TERSOR_CHECK(copy_raw(merge_runs(regions, options.type), from));
    TERSOR_CHECK(record(sent, from));
  }
  const on_device here(options.target_device);
  TERSOR_CHECK(here.good());
  return wait(to, sent);
}

result<link_method> device_link::send_async(std::span<const link_region> regions, link_method method,
                                            std::span<link_verdict> verdicts, cuda::stream source,
                                            cuda::stream target) {
  impl& link = *impl_;
  std::uint64_t n_bytes = 0;
  for (const link_region& region : regions) n_bytes += region.n_values * value_bytes(link.options.type);
  if (method == link_method::automatic) method = choose(n_bytes);
  TERSOR_TRY(const part_plan plan, plan_parts(regions, link.rule(method)));
  const bool staged = (method != link_method::pull && method != link_method::copy) || link.source_slots;
  const bool landed = (method != link_method::push && method != link_method::copy) || link.target_slots;
  if (!staged || !landed) return fail(errc::unsupported, "the link has no staging memory for this method");
  if (verdicts.size() < plan.pieces.size()) {
    return fail(errc::invalid_argument, std::to_string(plan.pieces.size()) +
                                            " verdicts are needed, there are " +
                                            std::to_string(verdicts.size()));
  }
  const bool coded = method != link_method::raw;
  const std::uint64_t n_set = coded ? plan.pieces.size() : 0;
  reset_sent(verdicts, n_set);
  reset_received(verdicts, n_set, link.options.recheck);
  const auto used = verdicts.first(plan.pieces.size());
  if (!coded) {
    TERSOR_CHECK(link.send_raw(regions, source, target));
    return method;
  }
  const job j{.regions = regions,
              .plan = plan,
              .verdicts = used,
              .code = link.options.codec,
              .type = link.options.type,
              .recheck = link.options.recheck};
  TERSOR_CHECK(link.send_coded(j, method, source, target));
  return method;
}

}  // namespace tersor::transfer
