// Device memory, streams, graphs and timing for the GPU benchmark.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include <cuda_runtime_api.h>

#include <tersor/error.hpp>

namespace tersor::bench {

/// `internal` with CUDA's reason, or `out_of_memory`.
[[nodiscard]] status cuda_ok(cudaError_t code, const char* what);

/// Owns device memory.
class device_buffer {
 public:
  device_buffer() = default;
  device_buffer(device_buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), n_bytes_(std::exchange(other.n_bytes_, 0)) {}
  device_buffer& operator=(device_buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_bytes_, other.n_bytes_);
    return *this;
  }
  ~device_buffer();

  /// Filled with `fill`. Zero bytes get a small buffer.
  [[nodiscard]] static result<device_buffer> allocate(std::uint64_t n_bytes, int fill = 0);

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return n_bytes_; }
  [[nodiscard]] status fill(int value);

 private:
  std::byte* data_ = nullptr;
  std::uint64_t n_bytes_ = 0;
};

[[nodiscard]] status upload(void* dst_dev, std::span<const std::byte> src);
[[nodiscard]] status download(std::span<std::byte> dst, const void* src_dev);
/// `internal`, with `what`, if the device memory differs from `want` in any byte.
[[nodiscard]] status expect_equal(const void* got_dev, std::span<const std::byte> want,
                                  const std::string& what);

class gpu_stream {
 public:
  gpu_stream() = default;
  gpu_stream(gpu_stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  gpu_stream& operator=(gpu_stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~gpu_stream();

  [[nodiscard]] static result<gpu_stream> create();
  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }
  [[nodiscard]] status wait() const;

 private:
  cudaStream_t stream_ = nullptr;
};

struct timing_plan {
  unsigned warmup = 10;
  unsigned iters = 50;  ///< raised to the number of slots, so that a round meets all of them
  unsigned repeats = 5;
  bool graph = false;
};

/// Enqueues one call on the buffers of a slot.
using enqueue = std::function<status(std::uint64_t slot)>;

/// Median over the repeats of the microseconds a call takes between two events, calls going round the slots.
[[nodiscard]] result<double> device_us(const gpu_stream& s, const timing_plan& plan, std::uint64_t n_slots,
                                       const enqueue& call);
/// Microseconds of wall time a call takes in a long run of launches, the host's part included; median.
[[nodiscard]] result<double> wall_us(const gpu_stream& s, const timing_plan& plan, std::uint64_t n_slots,
                                     const enqueue& call);

}  // namespace tersor::bench
