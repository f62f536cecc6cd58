// What `tersor bench gemm` measures: products from packed weights beside cuBLASLt's from plain ones; and what
// `tersor tune` finds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tersor/gemm.hpp>

namespace tersor::bench {

/// A weight: M outputs, K inputs.
struct gemm_size {
  std::uint64_t rows = 0, cols = 0;
  [[nodiscard]] bool operator==(const gemm_size&) const noexcept = default;
};
/// The linear layers of a model as serving engines fuse them (qkv, output, gate and up, down), or "targets":
/// the shapes of docs/gemm.md. Empty for an unknown name.
[[nodiscard]] std::vector<gemm_size> gemm_sizes_of(std::string_view name);
[[nodiscard]] std::vector<std::string> gemm_size_names();

struct gemm_bench_options {
  int device = 0;
  std::vector<gemm_size> sizes = {};
  std::vector<std::uint64_t> n = {1, 8, 16, 32, 64, 128, 256, 1024, 4096};
  std::vector<matrix_layout> layouts = {matrix_layout::packed};
  dtype type = dtype::bf16;
  std::optional<std::uint32_t> split_k = {};        ///< instead of the planner's
  std::optional<cuda::gemm_plan> plan = {};         ///< for all rows
  std::optional<cuda::gemm_plan_table> plans = {};  ///< before the planner, where it has the shape
  bool graph = true;                                ///< replay a captured graph instead of launching
  bool pdl = false;                                 ///< one more row each, with programmatic dependent launch
  bool unpack = false;                              ///< the decompressor too
  unsigned repeats = 9;
  unsigned threads = 0;  ///< of the CPU, where it packs; 0 = all cores
  /// BF16 weights that are repeated to each shape; else normal values with a log-normal scale a row.
  std::optional<std::filesystem::path> input = {};
  std::function<void(const std::string&)> on_step = {};
};

/// `invalid_argument` for what cannot be measured, on any machine.
[[nodiscard]] status check_gemm_options(const gemm_bench_options& options);

/// Errors against sums in fp64 over a sample of the outputs. `rms`: of the differences, relative to that of
/// the outputs; `max`: the largest difference, relative to the output's size and the rms of all.
struct gemm_error {
  double rms = 0, max = 0;
};

struct gemm_row {
  gemm_size size;
  std::uint64_t n = 0;
  matrix_layout layout = matrix_layout::packed;
  bool graph = false, pdl = false;
  cuda::gemm_plan plan;
  double bits_per_weight = 0;
  std::uint64_t packed_bytes = 0;
  double time_us = 0;
  gemm_error error = {};
  std::optional<double> cublas_us = {};  ///< in the same launch mode; none without the library
  std::optional<gemm_error> cublas_error = {};
  bool wrong = false;        ///< weights, outputs or their repetition are not what they must be
  std::string failure = {};  ///< why there are no figures

  [[nodiscard]] std::optional<double> speedup() const noexcept {
    if (!cublas_us || time_us <= 0) return std::nullopt;
    return *cublas_us / time_us;
  }
  [[nodiscard]] double packed_tb_s() const noexcept {
    return time_us > 0 ? static_cast<double>(packed_bytes) / (time_us * 1e6) : 0;
  }
  [[nodiscard]] double tflop_s() const noexcept;
};

struct gemm_unpack_row {
  gemm_size size;
  matrix_layout layout = matrix_layout::packed;
  double time_us = 0;
  double gb_s = 0;        ///< bytes read and written
  double copy_share = 0;  ///< of the copy's
};

/// Over the rows of one N, layout and launch mode that have a speed-up.
struct gemm_summary {
  std::uint64_t n = 0;
  matrix_layout layout = matrix_layout::packed;
  bool pdl = false;
  std::size_t n_rows = 0;
  double geomean = 0, least = 0;
};
[[nodiscard]] std::vector<gemm_summary> summaries_of(std::span<const gemm_row> rows);

struct gemm_bench_report {
  std::string device, driver;
  std::string data;  ///< "row-scaled", or the name of the input
  double copy_gb_s = 0;
  bool has_library = false;
  std::vector<gemm_row> rows;
  std::vector<gemm_unpack_row> unpack;
};

/// Errors: `backend_unavailable` without a GPU, `invalid_argument`, those of CUDA. Wrong and failed rows are
/// in the report.
[[nodiscard]] result<gemm_bench_report> run_gemm_bench(const gemm_bench_options& options);

/// Tries plans for every size, layout and N and returns the fastest that is right. Of the options, what
/// concerns rows and launches does not matter: plans are timed in graphs.
[[nodiscard]] result<cuda::gemm_plan_table> tune_gemm(const gemm_bench_options& options);
/// What it tries: valid plans, the planner's first.
[[nodiscard]] std::vector<cuda::gemm_plan> candidate_plans(const cuda::gemm_shape& shape,
                                                           const cuda::gemm_device& device);

/// Speed-up against N, one line a shape; a second panel for programmatic dependent launch. `subtitle` names
/// the machine.
[[nodiscard]] std::string gemm_svg(std::span<const gemm_row> rows, const std::string& subtitle);

}  // namespace tersor::bench
