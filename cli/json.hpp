// The JSON documents of docs/json.md, each with a newline at its end.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec_bench.hpp"
#include "gemm_bench.hpp"
#include "gpu_bench.hpp"
#include <tersor/cuda.hpp>
#include <tersor/model.hpp>
#include <tersor/transfer.hpp>

namespace tersor::cli {

/// What a verb was asked to do, for the head of its report.
struct job {
  std::string_view command;
  std::string source;
  std::optional<std::string> destination = {};
  std::optional<std::string> against = {};
  std::optional<std::string> codec = {};
  std::optional<std::string> layout = {};
  std::optional<unsigned> threads = {};
  std::optional<std::string> backend = {};
  bool dry_run = false;
  bool verified = false;
};

[[nodiscard]] std::string json_of(const error& e);
[[nodiscard]] std::string json_of(const job& what, const model_report& report);
[[nodiscard]] std::string json_of(const bench::codec_bench_report& report);

/// Where the figures of a GPU come from.
struct bench_run {
  std::string commit;
  std::string command;
  std::string date;
};
[[nodiscard]] std::string json_of(const bench::gpu_bench_report& report, const bench_run& run);
[[nodiscard]] std::string json_of(const bench::gemm_bench_report& report, const bench_run& run);
/// The rows of another program's measurement in the same form. Errors: `malformed`.
[[nodiscard]] result<std::vector<bench::gpu_row>> peer_rows_of(const std::string& text);

/// What `tersor inspect` says of all tensors of one type.
struct type_summary {
  std::string type;
  std::string dtype;
  std::vector<std::vector<std::uint64_t>> shapes;
  std::vector<std::string> codecs;
  std::uint64_t n_tensors = 0;
  std::uint64_t n_values = 0;
  std::uint64_t original_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t n_escape_tiles = 0;
  std::uint64_t n_raw_tiles = 0;
};
[[nodiscard]] std::string json_of(const job& what, const model_report& report,
                                  const std::vector<type_summary>& types);

struct calibration_summary {
  std::string destination;
  std::size_t n_tensors = 0;
  std::size_t n_types = 0;
  std::size_t n_dtypes = 0;
};
[[nodiscard]] std::string json_of(const calibration_summary& summary);

struct machine_report {
  std::vector<backend_info> backends;
  std::string backend;        ///< empty if none could be chosen
  std::string backend_error;  ///< why
  std::string forced;         ///< value of TERSOR_BACKEND, or empty
  std::string cpu;
  unsigned threads = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t available_bytes = 0;
  std::uint64_t page_bytes = 0;
  std::string huge_pages;
  std::string compiler;
  std::vector<std::pair<std::string, std::string>> libraries;
  std::vector<cuda::device_info> gpus;
  std::string gpu_error;  ///< why there are none
  std::vector<transfer::transport_info> transports;
};
[[nodiscard]] std::string json_of(const machine_report& machine);

[[nodiscard]] std::string json_library_version();

}  // namespace tersor::cli
