// What every part of the GEMM benchmark is given, and its device memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cuda/gemm/library_gemm.hpp"
#include "gemm_bench.hpp"
#include "gemm_kernels.hpp"
#include "gpu_device.hpp"

namespace tersor::bench {

struct gemm_env {
  const gemm_bench_options& options;
  const context& cpu;
  cuda::device_info device;
  cuda::gemm_device planner;
  const cuda::library_gemm* library = nullptr;
  gpu_stream stream;
  device_buffer library_workspace;
  std::vector<std::byte> input = {};  ///< BF16 weights to repeat
  double copy_gb_s = 0;

  void step(const std::string& text) const {
    if (options.on_step) options.on_step(text);
  }
  [[nodiscard]] cudaStream_t get() const noexcept { return stream.get(); }
};

inline constexpr std::uint64_t kLibraryWorkspace = std::uint64_t{64} << 20;

[[nodiscard]] inline status launched(int error, const char* what) {
  return cuda_ok(static_cast<cudaError_t>(error), what);
}

/// Copies of equal size, side by side, that calls go round so that none finds its input in the L2 cache.
class slot_ring {
 public:
  [[nodiscard]] status allocate(std::uint64_t n_slots, std::uint64_t slot_bytes);
  [[nodiscard]] std::byte* at(std::uint64_t slot) const noexcept { return buffer_.data() + slot * stride_; }
  [[nodiscard]] std::uint64_t slot_bytes() const noexcept { return n_bytes_; }
  /// Fills the other slots with the first one's bytes.
  [[nodiscard]] status repeat_first(std::uint64_t n_slots) const;

 private:
  device_buffer buffer_;
  std::uint64_t n_bytes_ = 0, stride_ = 0;
};

/// One number in device memory that kernels count with.
class device_count {
 public:
  [[nodiscard]] status allocate();
  [[nodiscard]] std::uint64_t* get() const noexcept;
  /// Waits for the stream, reads the count and sets it to zero.
  [[nodiscard]] result<std::uint64_t> take(const gpu_stream& s) const;

 private:
  device_buffer buffer_;
};

/// A weight, plain and packed, in as many copies as the caches demand.
class gemm_matrix {
 public:
  [[nodiscard]] static result<gemm_matrix> create(const gemm_env& env, const gemm_size& size,
                                                  matrix_layout layout);

  [[nodiscard]] std::uint64_t n_slots() const noexcept { return n_slots_; }
  [[nodiscard]] const gemm_size& size() const noexcept { return size_; }
  [[nodiscard]] const matrix_info& info() const noexcept { return info_; }
  [[nodiscard]] std::byte* plain(std::uint64_t slot) const noexcept { return plain_.at(slot); }
  [[nodiscard]] cuda::packed_weight packed(std::uint64_t slot) const noexcept {
    return {info_, packed_.at(slot)};
  }

  /// Unpacks the first copy and compares every value. False: they differ, or the digests say so.
  [[nodiscard]] result<bool> unpacks_to_source(const gemm_env& env) const;

 private:
  gemm_size size_;
  matrix_info info_;
  std::uint64_t n_slots_ = 0;
  slot_ring plain_, packed_;
};

/// X and Y for some tokens, and what Y must be.
class gemm_tokens {
 public:
  [[nodiscard]] static result<gemm_tokens> create(const gemm_env& env, const gemm_matrix& matrix,
                                                  std::uint64_t n);

  [[nodiscard]] std::uint64_t n() const noexcept { return n_; }
  [[nodiscard]] const std::byte* x(std::uint64_t slot) const noexcept { return x_.at(slot); }
  [[nodiscard]] std::byte* y(std::uint64_t slot) const noexcept { return y_.at(slot); }

  /// Makes all values of all Y no numbers.
  [[nodiscard]] status poison() const;
  /// The first Y's distance from the reference; infinite where a value is not finite.
  [[nodiscard]] result<gemm_error> error_of_first(const gemm_env& env) const;
  /// True if all Y hold the first one's bits.
  [[nodiscard]] result<bool> all_equal(const gemm_env& env) const;

 private:
  [[nodiscard]] gemm_sample sample() const noexcept;

  gemm_size size_;
  dtype type_ = dtype::bf16;
  std::uint64_t n_ = 0, n_slots_ = 0;
  slot_ring x_, y_;
  device_buffer sample_rows_, gathered_;
  std::uint64_t n_sample_rows_ = 0;
  std::vector<double> want_;
  device_count count_;
};

/// Worse than rounding can explain and worse than the library's.
[[nodiscard]] bool is_wrong(dtype type, const gemm_error& got,
                            const std::optional<gemm_error>& library) noexcept;

/// One product with a plan, checked against the reference.
struct gemm_try {
  cuda::gemm_plan plan;
  bool pdl = false;
};
/// Workspace of a plan, zeroed.
[[nodiscard]] result<device_buffer> workspace_for(const gemm_env& env, const gemm_matrix& matrix,
                                                  std::uint64_t n, const cuda::gemm_plan& plan);
[[nodiscard]] status enqueue_product(const gemm_env& env, const gemm_matrix& matrix,
                                     const gemm_tokens& tokens, const gemm_try& how, const device_buffer& ws,
                                     std::uint64_t slot);
/// Runs the product once on the first slot; its error.
[[nodiscard]] result<gemm_error> check_product(const gemm_env& env, const gemm_matrix& matrix,
                                               const gemm_tokens& tokens, const gemm_try& how,
                                               const device_buffer& ws);
/// How often calls repeat for one measurement.
[[nodiscard]] timing_plan timing_for(const gemm_env& env, const gemm_matrix& matrix, std::uint64_t n,
                                     unsigned repeats);

/// cuBLASLt's best: of its 16 first algorithms the one that is fastest here, on the plain weights.
struct library_time {
  double us = 0;
  gemm_error error;
};
/// Nothing if the library has no algorithm for it.
[[nodiscard]] result<std::optional<library_time>> measure_library(const gemm_env& env,
                                                                  const gemm_matrix& matrix,
                                                                  const gemm_tokens& tokens);

/// The environment of `options`, with the device current. Errors: `backend_unavailable`, `invalid_argument`.
class gemm_session {
 public:
  [[nodiscard]] static result<gemm_session> create(const gemm_bench_options& options);
  [[nodiscard]] const gemm_env& env() const noexcept { return *env_; }
  [[nodiscard]] const std::string& data_name() const noexcept { return data_name_; }

 private:
  std::unique_ptr<context> cpu_;
  std::unique_ptr<gemm_env> env_;
  std::string data_name_ = "row-scaled";
};

}  // namespace tersor::bench
