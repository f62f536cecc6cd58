// What a link owns on its devices: memory, streams and events that free themselves.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include <tersor/error.hpp>

namespace tersor::transfer::device {

[[nodiscard]] inline status ok(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return {};
  // The error is the caller's to see here, not in a later call.
  static_cast<void>(cudaGetLastError());
  const errc as = code == cudaErrorMemoryAllocation ? errc::out_of_memory
                  : code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver
                      ? errc::backend_unavailable
                      : errc::internal;
  return fail(as, std::string(what) + ": " + cudaGetErrorString(code));
}

/// Makes a device current and puts the caller's back.
class on_device {
 public:
  explicit on_device(int device) {
    code_ = cudaGetDevice(&before_);
    if (code_ == cudaSuccess) code_ = cudaSetDevice(device);
  }
  on_device(const on_device&) = delete;
  on_device& operator=(const on_device&) = delete;
  ~on_device() { static_cast<void>(cudaSetDevice(before_)); }
  [[nodiscard]] status good() const { return ok(code_, "choosing a device"); }

 private:
  int before_ = 0;
  cudaError_t code_ = cudaSuccess;
};

template <class Handle, cudaError_t (*kFree)(Handle)>
class owned {
 public:
  owned() = default;
  explicit owned(Handle h) : handle_(h) {}
  owned(owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  owned& operator=(owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~owned() {
    // After an error of the device there is nobody to tell; the next call reports it again.
    if (handle_ != nullptr) static_cast<void>(kFree(handle_));
  }
  [[nodiscard]] Handle get() const noexcept { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using memory = owned<void*, cudaFree>;
using own_stream = owned<cudaStream_t, cudaStreamDestroy>;
using own_event = owned<cudaEvent_t, cudaEventDestroy>;

/// Zeroed memory of the current device.
[[nodiscard]] inline result<memory> make_memory(std::uint64_t n_bytes) {
  void* data = nullptr;
  TERSOR_CHECK(ok(cudaMalloc(&data, n_bytes), "device memory"));
  memory held(data);
  TERSOR_CHECK(ok(cudaMemset(data, 0, n_bytes), "clearing device memory"));
  TERSOR_CHECK(ok(cudaDeviceSynchronize(), "clearing device memory"));
  return held;
}
/// `urgent`: its kernels go first where multiprocessors are short.
[[nodiscard]] inline result<own_stream> make_stream(bool urgent = false) {
  int least = 0, greatest = 0;
  TERSOR_CHECK(ok(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities"));
  cudaStream_t s = nullptr;
  TERSOR_CHECK(
      ok(cudaStreamCreateWithPriority(&s, cudaStreamNonBlocking, urgent ? greatest : least), "stream"));
  return own_stream(s);
}
[[nodiscard]] inline result<own_event> make_event() {
  cudaEvent_t e = nullptr;
  TERSOR_CHECK(ok(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event"));
  return own_event(e);
}
/// An event a slot, on the current device.
[[nodiscard]] inline result<std::vector<own_event>> make_events(std::uint32_t n) {
  std::vector<own_event> all;
  for (std::uint32_t i = 0; i < n; ++i) {
    TERSOR_TRY(own_event one, make_event());
    all.push_back(std::move(one));
  }
  return all;
}

[[nodiscard]] inline status record(const own_event& e, cudaStream_t s) {
  return ok(cudaEventRecord(e.get(), s), "event");
}
/// An event that was never recorded holds nobody up.
[[nodiscard]] inline status wait(cudaStream_t s, const own_event& e) {
  return ok(cudaStreamWaitEvent(s, e.get(), 0), "waiting for an event");
}

}  // namespace tersor::transfer::device
