// Pinned verdicts, and memory and events that two processes share.
#include <cstring>

#include "core/checked.hpp"
#include "transfer/device/resources.hpp"
#include <tersor/device_link.hpp>

namespace tersor::transfer {

using namespace device;

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(ipc_token) &&
              sizeof(cudaIpcEventHandle_t) == sizeof(ipc_token));

result<pinned_verdicts> pinned_verdicts::create(std::uint64_t n) {
  const auto bytes = core::checked_mul(n, sizeof(link_verdict));
  if (!bytes) return fail(errc::size_overflow, "verdicts leave 64 bits");
  void* data = nullptr;
  TERSOR_CHECK(ok(cudaHostAlloc(&data, *bytes == 0 ? 1 : *bytes, cudaHostAllocPortable), "pinned memory"));
  pinned_verdicts all;
  all.all_ = {static_cast<link_verdict*>(data), n};
  std::uninitialized_value_construct_n(all.all_.data(), n);
  return all;
}
pinned_verdicts::pinned_verdicts(pinned_verdicts&& other) noexcept : all_(std::exchange(other.all_, {})) {}
pinned_verdicts& pinned_verdicts::operator=(pinned_verdicts&& other) noexcept {
  std::swap(all_, other.all_);
  return *this;
}
pinned_verdicts::~pinned_verdicts() {
  if (all_.data() != nullptr) static_cast<void>(cudaFreeHost(all_.data()));
}

result<shared_staging> shared_staging::create(int device, std::uint64_t n_bytes) {
  const on_device here(device);
  TERSOR_CHECK(here.good());
  shared_staging s;
  TERSOR_CHECK(ok(cudaMalloc(&s.data_, n_bytes), "device memory"));
  s.n_bytes_ = n_bytes;
  s.device_ = device;
  return s;
}
result<shared_staging> shared_staging::open(int device, const ipc_token& token, std::uint64_t n_bytes) {
  const on_device here(device);
  TERSOR_CHECK(here.good());
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, token.data(), sizeof handle);
  shared_staging s;
  TERSOR_CHECK(ok(cudaIpcOpenMemHandle(&s.data_, handle, cudaIpcMemLazyEnablePeerAccess),
                  "opening another process's memory"));
  s.n_bytes_ = n_bytes;
  s.device_ = device;
  s.opened_ = true;
  return s;
}
shared_staging::shared_staging(shared_staging&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      n_bytes_(other.n_bytes_),
      device_(other.device_),
      opened_(other.opened_) {}
shared_staging& shared_staging::operator=(shared_staging&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(n_bytes_, other.n_bytes_);
  std::swap(device_, other.device_);
  std::swap(opened_, other.opened_);
  return *this;
}
shared_staging::~shared_staging() {
  if (data_ == nullptr) return;
  const on_device here(device_);
  static_cast<void>(opened_ ? cudaIpcCloseMemHandle(data_) : cudaFree(data_));
}
result<ipc_token> shared_staging::token() const {
  if (opened_) return fail(errc::invalid_argument, "memory of another process is its own to share");
  const on_device here(device_);
  TERSOR_CHECK(here.good());
  cudaIpcMemHandle_t handle;
  TERSOR_CHECK(ok(cudaIpcGetMemHandle(&handle, data_), "sharing memory"));
  ipc_token token;
  std::memcpy(token.data(), &handle, sizeof handle);
  return token;
}

result<shared_event> shared_event::create(int device) {
  const on_device here(device);
  TERSOR_CHECK(here.good());
  cudaEvent_t event = nullptr;
  TERSOR_CHECK(
      ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess), "shared event"));
  shared_event e;
  e.event_ = event;
  e.device_ = device;
  return e;
}
result<shared_event> shared_event::open(int device, const ipc_token& token) {
  const on_device here(device);
  TERSOR_CHECK(here.good());
  cudaIpcEventHandle_t handle;
  std::memcpy(&handle, token.data(), sizeof handle);
  cudaEvent_t event = nullptr;
  TERSOR_CHECK(ok(cudaIpcOpenEventHandle(&event, handle), "opening another process's event"));
  shared_event e;
  e.event_ = event;
  e.device_ = device;
  return e;
}
shared_event::shared_event(shared_event&& other) noexcept
    : event_(std::exchange(other.event_, nullptr)), device_(other.device_) {}
shared_event& shared_event::operator=(shared_event&& other) noexcept {
  std::swap(event_, other.event_);
  std::swap(device_, other.device_);
  return *this;
}
shared_event::~shared_event() {
  if (event_ == nullptr) return;
  const on_device here(device_);
  static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event_)));
}
result<ipc_token> shared_event::token() const {
  cudaIpcEventHandle_t handle;
  TERSOR_CHECK(ok(cudaIpcGetEventHandle(&handle, static_cast<cudaEvent_t>(event_)), "sharing an event"));
  ipc_token token;
  std::memcpy(token.data(), &handle, sizeof handle);
  return token;
}
status shared_event::record(cuda::stream s) const {
  return ok(cudaEventRecord(static_cast<cudaEvent_t>(event_), s), "shared event");
}
status shared_event::wait(cuda::stream s) const {
  return ok(cudaStreamWaitEvent(s, static_cast<cudaEvent_t>(event_), 0), "waiting for a shared event");
}

}  // namespace tersor::transfer
