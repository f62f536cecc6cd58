#include "model/session.hpp"

#include <algorithm>

#include "core/checked.hpp"

namespace tersor::model_detail {

status session::advance(std::uint64_t n_bytes) {
  progress_.done += n_bytes;
  if (options_.on_progress) options_.on_progress(progress_);
  if (options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed)) {
    return fail(errc::cancelled, "cancelled");
  }
  return {};
}

bool session::is_selected(std::string_view tensor) const {
  const auto matches = [tensor](const std::string& pattern) { return glob_match(pattern, tensor); };
  if (std::ranges::any_of(options_.exclude, matches)) return false;
  return options_.include.empty() || std::ranges::any_of(options_.include, matches);
}

model_report session::finish(std::vector<file_report> files) const {
  model_report report{.files = std::move(files)};
  for (const file_report& file : report.files) {
    report.original_bytes += file.original_bytes;
    report.stored_bytes += file.stored_bytes;
    report.n_tensors += file.tensors.size();
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  return report;
}

tensor_report stored_report(const safetensors::tensor_entry& entry, std::uint64_t digest) {
  tensor_report report{.name = entry.name, .dtype = entry.dtype, .shape = entry.shape};
  report.original_bytes = entry.end - entry.begin;
  report.stored_bytes = report.original_bytes;
  report.digest = digest;
  // Only the shape of an unknown dtype can leave 64 bits; it has no number of values then.
  report.n_values = 1;
  for (const std::uint64_t dimension : entry.shape) {
    report.n_values = core::checked_mul(report.n_values, dimension).value_or(0);
  }
  return report;
}

tensor_report coded_report(const safetensors::tensor_entry& entry, const coded_info& info) {
  if (info.matrix) {
    tensor_report report = stored_report(entry, info.matrix->digest);
    report.stored_bytes = info.matrix->n_bytes;
    report.layout = info.matrix->layout;
    return report;
  }
  const frame_info& frame = info.frame;
  tensor_report report = stored_report(entry, frame.digest);
  report.stored_bytes = frame.frame_bytes;
  report.codec = frame.codec;
  report.n_values = frame.n_values;
  report.n_escape_tiles = frame.escape_tiles;
  report.n_raw_tiles = frame.raw_tiles;
  return report;
}

}  // namespace tersor::model_detail
