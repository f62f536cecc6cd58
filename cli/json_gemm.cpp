#include <cmath>

#include <nlohmann/json.hpp>

#include "json.hpp"

namespace tersor::cli {
namespace {

using json = nlohmann::ordered_json;

/// JSON has no infinity.
json finite_or_null(std::optional<double> value) {
  return value && std::isfinite(*value) ? json(*value) : json(nullptr);
}

json row_json(const bench::gemm_row& row) {
  const bool measured = row.failure.empty();
  const auto if_measured = [&](std::optional<double> value) {
    return measured ? finite_or_null(value) : json(nullptr);
  };
  const auto& library = row.cublas_error;
  return {{"m", row.size.rows},
          {"k", row.size.cols},
          {"n", row.n},
          {"layout", std::string(to_string(row.layout))},
          {"graph", row.graph},
          {"pdl", row.pdl},
          {"time_us", if_measured(row.time_us)},
          {"cublas_us", finite_or_null(row.cublas_us)},
          {"speedup", if_measured(row.speedup())},
          {"bits_per_weight", row.bits_per_weight},
          {"plan", to_string(row.plan)},
          {"rms_error", if_measured(row.error.rms)},
          {"cublas_rms_error", finite_or_null(library ? std::optional(library->rms) : std::nullopt)},
          {"max_error", if_measured(row.error.max)},
          {"cublas_max_error", finite_or_null(library ? std::optional(library->max) : std::nullopt)},
          {"wrong", row.wrong},
          {"failure", measured ? json(nullptr) : json(row.failure)}};
}

json summary_json(const bench::gemm_summary& s) {
  return {{"layout", std::string(to_string(s.layout))},
          {"pdl", s.pdl},
          {"n", s.n},
          {"shapes", s.n_rows},
          {"geomean", s.geomean},
          {"minimum", s.least}};
}

json unpack_json(const bench::gemm_unpack_row& row) {
  return {{"m", row.size.rows},     {"k", row.size.cols}, {"layout", std::string(to_string(row.layout))},
          {"time_us", row.time_us}, {"gb_s", row.gb_s},   {"copy_share", row.copy_share}};
}

}  // namespace

std::string json_of(const bench::gemm_bench_report& report, const bench_run& run) {
  json out = {
      {"device", report.device},
      {"driver", report.driver},
      {"commit", run.commit},
      {"command", run.command},
      {"date", run.date},
      {"data", report.data},
      {"copy_gb_s", report.copy_gb_s},
      // It has no option for programmatic dependent launch.
      {"cublas_mode", report.has_library ? json("without programmatic dependent launch") : json(nullptr)},
      {"rows", json::array()},
      {"geomeans", json::array()},
      {"unpack", json::array()}};
  for (const auto& row : report.rows) out["rows"].push_back(row_json(row));
  for (const auto& s : bench::summaries_of(report.rows)) out["geomeans"].push_back(summary_json(s));
  for (const auto& row : report.unpack) out["unpack"].push_back(unpack_json(row));
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace tersor::cli
