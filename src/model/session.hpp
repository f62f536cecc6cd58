// One public call: its options, how far it is, whether it shall stop.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

#include "safetensors/header.hpp"
#include <tersor/model.hpp>

namespace tersor::model_detail {

class session {
 public:
  session(const context& ctx, const model_options& options) : ctx_(ctx), options_(options) {}

  [[nodiscard]] const context& ctx() const noexcept { return ctx_; }
  [[nodiscard]] const model_options& options() const noexcept { return options_; }

  void set_total(std::uint64_t n_bytes) noexcept { progress_.total = n_bytes; }
  void set_file(std::string_view name) noexcept { progress_.file = name; }
  /// Reports `n_bytes` more; errc::cancelled if the caller wants to stop.
  [[nodiscard]] status advance(std::uint64_t n_bytes);

  /// True if the options choose the tensor for coding.
  [[nodiscard]] bool is_selected(std::string_view tensor) const;

  /// Adds up the files and stamps the time.
  [[nodiscard]] model_report finish(std::vector<file_report> files) const;

 private:
  const context& ctx_;
  const model_options& options_;
  progress progress_ = {};
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// The report of a tensor that is stored as it is.
[[nodiscard]] tensor_report stored_report(const safetensors::tensor_entry& entry, std::uint64_t digest);
/// What a coded tensor of a container is: a matrix frame, else a frame.
struct coded_info {
  std::optional<matrix_info> matrix = {};
  frame_info frame = {};
};
/// The report of a coded one.
[[nodiscard]] tensor_report coded_report(const safetensors::tensor_entry& entry, const coded_info& info);

}  // namespace tersor::model_detail
