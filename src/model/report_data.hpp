// The figures behind a report, summed from an analysis: shared by the JSON and the HTML form.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/analysis_stats.hpp"
#include <tersor/model.hpp>

namespace tersor::model_detail {

/// Sums over a group of tensors, each with its own codebook.
struct group_sums {
  std::uint64_t n_tensors = 0;
  std::uint64_t n_values = 0;
  std::uint64_t n_bytes = 0;
  std::uint64_t rank_bytes = 0;
  std::uint64_t top16_bytes = 0;
  double entropy_bits = 0;  ///< sum of entropy times values
  double ideal_bits = 0;    ///< sum of (rest bits + entropy) times values

  void add(const tensor_analysis& t);
  void add(const group_sums& other);
  [[nodiscard]] double entropy() const noexcept;
  [[nodiscard]] double ideal_ratio() const noexcept;
  [[nodiscard]] double rank_ratio() const noexcept;
  [[nodiscard]] double top16_ratio() const noexcept;
};

struct dtype_summary {
  tersor::dtype type = dtype::bytes;
  tensor_analysis shared = {};  ///< all tensors under one codebook
  group_sums own = {};
  bit_parts rank =
      {};  ///< mean over the values, codebook per tensor; `records` holds headers and rounding too
  bit_parts top16 = {};
  /// Extremes over the tensors with at least 1,024 values; of `shared` if there is none.
  std::array<double, 17> lowest_coverage = {};
  std::array<double, 17> highest_coverage = {};
};

struct type_summary {
  std::string name;
  group_sums sums;
};

/// Keys and values of one layer of a KV cache.
struct kv_layer {
  std::uint64_t layer = 0;
  group_sums keys;
  group_sums values;
};

struct report_data {
  group_sums all = {};
  std::uint64_t other_bytes = 0;
  std::uint64_t n_other_tensors = 0;
  std::uint64_t n_files = 0;
  std::vector<dtype_summary> dtypes = {};  ///< most bytes first
  std::vector<type_summary> types = {};    ///< most bytes first
  std::vector<kv_layer> kv = {};           ///< by layer; empty if the tensors are no KV cache

  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return all.n_bytes + other_bytes; }
  /// Ratio of all bytes when the coded tensors take `coded_bytes`.
  [[nodiscard]] double total_ratio(double coded_bytes) const noexcept;
};

[[nodiscard]] report_data summarize(const analysis& a);

/// What a tensor's name says about a KV cache: "layers.3.k", "past.3.value", "key_cache.3".
struct kv_name {
  std::uint64_t layer = 0;
  bool is_key = false;
};
[[nodiscard]] std::optional<kv_name> parse_kv_name(std::string_view name);

}  // namespace tersor::model_detail
