#include "transfer/transports/nccl_device.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "core/checked.hpp"

namespace tersor::transfer {
namespace {

result<int> wished_device() {
  const char* const wish = std::getenv("TERSOR_NCCL_DEVICE");
  if (wish == nullptr) return 0;
  const std::string_view text = wish;
  int device = -1;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), device);
  if (fault != std::errc() || end != text.data() + text.size() || device < 0 ||
      device >= find_nccl().n_devices)
    return fail(errc::invalid_argument, "TERSOR_NCCL_DEVICE is not a device of this machine");
  return device;
}

}  // namespace

current_context::current_context(cuda_context c) noexcept
    : pushed_(c != nullptr && find_nccl().cuda.push_context(c) == kCudaSuccess) {}

current_context::~current_context() {
  cuda_context ignored = nullptr;
  if (pushed_) (void)find_nccl().cuda.pop_context(&ignored);
}

status staging_device::open(std::span<std::byte> host, std::uint64_t slot_bytes, std::uint32_t n_slots) {
  constexpr std::uint64_t kAlignment = 4096;
  TERSOR_TRY(const int ordinal, wished_device());
  slot_bytes_ = core::align_up(slot_bytes, kAlignment);
  n_slots_ = n_slots;
  const cuda_driver& cuda = find_nccl().cuda;
  int device = -1;
  TERSOR_CHECK(check_cuda(cuda.device_get(&device, ordinal), "open the device"));
  TERSOR_CHECK(check_cuda(cuda.retain_context(&context_, device), "open the device"));
  device_ = device;
  const current_context here(context_);
  return make_objects(host);
}

status staging_device::make_objects(std::span<std::byte> host) {
  const cuda_driver& cuda = find_nccl().cuda;
  const auto size = core::checked_mul(slot_bytes_, n_slots_);
  if (!size) return fail(errc::size_overflow, "the slots' size leaves 64 bits");
  TERSOR_CHECK(check_cuda(cuda.allocate(&memory_, *size), "allocate the slots"));
  constexpr unsigned kNonBlocking = 1;
  TERSOR_CHECK(check_cuda(cuda.stream_create(&copies_, kNonBlocking), "make a stream"));
  TERSOR_CHECK(check_cuda(cuda.stream_create(&messages_, kNonBlocking), "make a stream"));
  constexpr unsigned kWithoutTime = 2;
  for (std::uint64_t i = 0; i < std::uint64_t{2} * n_slots_; ++i) {
    cuda_event made = nullptr;
    TERSOR_CHECK(check_cuda(cuda.event_create(&made, kWithoutTime), "make an event"));
    events_.push_back(made);
  }
  // Pageable memory works as well, only slower.
  if (cuda.register_host(host.data(), host.size(), 0) == kCudaSuccess) pinned_ = host.data();
  return {};
}

staging_device::~staging_device() {
  if (context_ == nullptr) return;
  const cuda_driver& cuda = find_nccl().cuda;
  {
    const current_context here(context_);
    // Copies under way use the caller's memory, which goes next.
    for (const cuda_stream s : {copies_, messages_}) {
      if (s != nullptr) (void)cuda.stream_synchronize(s);
    }
    for (const cuda_event e : events_) (void)cuda.event_destroy(e);
    if (copies_ != nullptr) (void)cuda.stream_destroy(copies_);
    if (messages_ != nullptr) (void)cuda.stream_destroy(messages_);
    if (memory_ != 0) (void)cuda.free(memory_);
    if (pinned_ != nullptr) (void)cuda.unregister_host(pinned_);
  }
  (void)cuda.release_context(device_);
}

}  // namespace tersor::transfer
