#include "device.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

namespace gpu_test {

void must(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw cuda_failure(std::string(what) + ": " + cudaGetErrorString(code));
}

device_memory::device_memory(device_memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), n_bytes_(std::exchange(other.n_bytes_, 0)) {}

device_memory& device_memory::operator=(device_memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(n_bytes_, other.n_bytes_);
  return *this;
}

void device_memory::free() noexcept {
  if (data_ != nullptr) cudaFree(data_);
  data_ = nullptr;
  n_bytes_ = 0;
}

bool device_memory::grow(std::uint64_t n_bytes) {
  if (data_ != nullptr && n_bytes <= n_bytes_) return false;
  free();
  void* p = nullptr;
  must(cudaMalloc(&p, std::max<std::uint64_t>(n_bytes, 1)), "cudaMalloc");
  data_ = static_cast<std::uint8_t*>(p);
  n_bytes_ = n_bytes;
  return true;
}

// The copies below use the default stream, which the tests' own streams do not wait for: each call waits.
void device_memory::fill(std::uint64_t at, std::uint64_t n_bytes, std::uint8_t value) {
  if (n_bytes == 0) return;
  must(cudaMemset(data_ + at, value, n_bytes), "cudaMemset");
  must(cudaStreamSynchronize(nullptr), "cudaMemset");
}

void device_memory::put(std::uint64_t at, byte_view data) {
  if (data.empty()) return;
  must(cudaMemcpy(data_ + at, data.data(), data.size(), cudaMemcpyHostToDevice), "copy to the device");
  must(cudaStreamSynchronize(nullptr), "copy to the device");
}

bytes device_memory::take(std::uint64_t at, std::uint64_t n_bytes) const {
  bytes out(n_bytes);
  if (n_bytes != 0)
    must(cudaMemcpy(out.data(), data_ + at, n_bytes, cudaMemcpyDeviceToHost), "copy from the device");
  return out;
}

bool device_memory::holds(std::uint64_t at, std::uint64_t n_bytes, std::uint8_t value) const {
  const bytes found = take(at, n_bytes);
  return std::ranges::all_of(found, [&](std::byte b) { return b == std::byte{value}; });
}

side_stream::side_stream(unsigned flags) {
  must(cudaStreamCreateWithFlags(&stream_, flags), "cudaStreamCreateWithFlags");
}

void env::wait(cudaStream_t stream, section& s, std::string_view what) const {
  using clock = std::chrono::steady_clock;
  const auto begin = clock::now();
  while (true) {
    const cudaError_t state = cudaStreamQuery(stream);
    if (state == cudaSuccess) return;
    if (state != cudaErrorNotReady) must(state, std::string(what).c_str());
    const std::chrono::duration<double> waited = clock::now() - begin;
    if (waited.count() > opt.watchdog_s) break;
    if (waited.count() > 0.001) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  s.check(false, "the launch did not end before the watchdog", what);
  log.end(s, opt.watchdog_s);
  (void)log.write();
  std::fflush(nullptr);
  std::_Exit(1);
}

tersor::cuda::frame_result take_result(const device_memory& memory, std::uint64_t index) {
  tersor::cuda::frame_result result;
  const bytes raw = memory.take(index * sizeof result, sizeof result);
  std::memcpy(&result, raw.data(), sizeof result);
  return result;
}

tersor::cuda::workspace work_memory::of(std::uint64_t n_bytes) {
  const std::uint64_t wanted = std::max<std::uint64_t>(n_bytes, 16);
  if (memory_.grow(wanted)) memory_.fill(0, wanted, 0);
  return {.data_dev = memory_.get(), .n_bytes = wanted};
}

}  // namespace gpu_test
