// What `tersor bench codec --device cuda:N` measures: speed and ratio of the codecs on a GPU beside its copy.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <tersor/tensor.hpp>

namespace tersor::bench {

struct gpu_bench_options {
  int device = 0;
  std::uint64_t rows = 65536;  ///< of the synthetic tensor; real data is repeated to the same bytes
  std::uint64_t hidden_dim = 4096;
  /// "normal", "lognormal-columns", "row-scaled", "input"; empty = input if there is one, else the other
  /// three.
  std::vector<std::string> data = {};
  std::optional<std::filesystem::path> input = {};
  /// Where the codebooks come from; none = each tensor's own.
  std::optional<std::filesystem::path> calibration_input = {};
  std::vector<codec> codecs = {codec::rank, codec::top16};
  std::vector<dtype> dtypes = {dtype::bf16};
  unsigned warmup = 10;
  unsigned iters = 50;
  unsigned repeats = 5;
  unsigned threads = 0;  ///< of the CPU that makes and checks the data; 0 = all cores
  bool graph = false;    ///< replay a captured graph instead of launching
  bool pages = false;    ///< measure paged KV caches too
  std::uint64_t kv_tokens = 32768;
  unsigned kv_layers = 4;
  std::function<void(const std::string&)> on_step = {};
};

/// Speeds are medians, in 1e9 original bytes a second.
struct gpu_row {
  std::string codec;
  std::string type;  ///< "bf16", "f16", "e4m3", "e5m2"
  std::string data;
  std::uint64_t n_bytes = 0;
  double ratio = 1;  ///< original bytes / frame bytes
  std::optional<double> coverage = {};
  double encode_gb_s = 0;
  std::optional<double> encode_canonical_gb_s = {};
  double decode_gb_s = 0;
  /// Time to move original and frame at the copy's rate / measured time.
  std::optional<double> encode_roofline = {};
  std::optional<double> decode_roofline = {};
  std::optional<double> codebook_gb_s = {};
  bool graph = false;
  bool peer = false;
};

/// Microseconds a call: launched one after another on the wall's clock, and inside a graph.
struct gpu_latency_row {
  std::string codec;
  std::uint64_t n_bytes = 0;
  double encode_us = 0, decode_us = 0;
  double encode_graph_us = 0, decode_graph_us = 0;
};

struct gpu_page_row {
  std::string codec, layout, kind, data;
  std::uint64_t pages = 0;  ///< of every pool
  std::uint64_t pools = 0;
  std::uint64_t n_bytes = 0;
  std::uint64_t slot_bytes = 0;      ///< kind slots
  std::uint64_t overflow_pages = 0;  ///< kind slots: pages that did not fit
  double ratio = 1;                  ///< kind slots: slots and overflow area in use counted whole
  double encode_gb_s = 0, decode_gb_s = 0;
  double encode_of_contiguous = 0, decode_of_contiguous = 0;
  double encode_roofline = 0, decode_roofline = 0;
};

struct gpu_bench_report {
  std::string device;
  std::string driver;
  double copy_gb_s = 0;  ///< bytes read and written, the faster of the next two
  double copy_engine_gb_s = 0;
  double copy_kernel_gb_s = 0;
  std::vector<gpu_row> rows;
  std::vector<gpu_latency_row> latency;
  std::vector<gpu_page_row> pages;
};

/// Every measured call must give its input back bit for bit, before and after the clock runs, and canonical
/// frames must be the CPU's; otherwise `internal` and nothing is reported. `backend_unavailable` without a
/// GPU.
[[nodiscard]] result<gpu_bench_report> run_gpu_bench(const gpu_bench_options& options);

/// "bf16", "f16", "e4m3", "e5m2", and back.
[[nodiscard]] std::string short_name(dtype type);
[[nodiscard]] std::optional<dtype> parse_short_name(std::string_view name) noexcept;

}  // namespace tersor::bench
