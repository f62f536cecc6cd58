// What every part of the GPU benchmark is given.
#pragma once

#include <string>
#include <vector>

#include "core/thread_pool.hpp"
#include "gpu_bench.hpp"
#include "gpu_data.hpp"
#include "gpu_device.hpp"
#include <tersor/cuda.hpp>

namespace tersor::bench {

struct gpu_env {
  const gpu_bench_options& options;
  const context& cpu;
  core::thread_pool& pool;
  cuda::device_info device;
  gpu_stream stream;
  double copy_gb_s = 0;

  [[nodiscard]] timing_plan plan() const noexcept {
    return {
        .warmup = options.warmup, .iters = options.iters, .repeats = options.repeats, .graph = options.graph};
  }
  /// Buffers that calls go round so that none finds its input in the L2 cache.
  [[nodiscard]] std::uint64_t slots_for(std::uint64_t n_bytes) const noexcept {
    const std::uint64_t want = 3 * device.l2_bytes;
    return n_bytes >= want ? 2 : std::max<std::uint64_t>(3, (want + n_bytes - 1) / n_bytes);
  }
  /// Share of the copy's rate that moving `n_bytes` in `us` reaches.
  [[nodiscard]] double roofline(std::uint64_t n_bytes, double us) const noexcept {
    return static_cast<double>(n_bytes) / (us * 1e3) / copy_gb_s;
  }
  void step(const std::string& text) const {
    if (options.on_step) options.on_step(text);
  }
};

[[nodiscard]] inline double gb_s(std::uint64_t n_bytes, double us) noexcept {
  return static_cast<double>(n_bytes) / (us * 1e3);
}

/// Zeroed memory of the size that a `*_workspace_size` function gave.
class gpu_workspace {
 public:
  [[nodiscard]] status allocate(std::uint64_t n_bytes) {
    TERSOR_TRY(buffer_, device_buffer::allocate(n_bytes));
    view_ = {.data_dev = buffer_.data(), .n_bytes = n_bytes};
    return {};
  }
  [[nodiscard]] const cuda::workspace& view() const noexcept { return view_; }

 private:
  device_buffer buffer_;
  cuda::workspace view_;
};

/// Waits, reads the results of `n` frames and fails with `what` if a code is not good.
[[nodiscard]] result<std::vector<cuda::frame_result>> good_results(const gpu_env& env,
                                                                   const device_buffer& results,
                                                                   std::uint64_t n, const std::string& what);

/// Fails unless a canonical frame in device memory is what the CPU makes of the same values, and the CPU
/// decodes it to them.
[[nodiscard]] status check_against_cpu(const gpu_env& env, codec which, const tensor_view& values,
                                       const codebook& book, const void* frame_dev,
                                       const cuda::frame_result& got, const std::string& what);

[[nodiscard]] status measure_copy(gpu_env& env, gpu_bench_report& report);
[[nodiscard]] result<gpu_row> measure_row(const gpu_env& env, codec which, const workload& work);
[[nodiscard]] result<gpu_latency_row> measure_latency(const gpu_env& env, codec which, const workload& work);
/// Paged KV caches in both layouts and kinds, for every codec; appended to the report.
[[nodiscard]] status measure_pages(const gpu_env& env, const std::vector<bench_tensor>& tensors,
                                   const std::string& data_name, gpu_bench_report& report);

}  // namespace tersor::bench
