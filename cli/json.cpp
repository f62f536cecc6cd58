#include "json.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "output.hpp"
#include <tersor/version.hpp>

namespace tersor::cli {
namespace {

using json = nlohmann::ordered_json;

// Paths need not be UTF-8; JSON must be.
std::string text_of(const json& document) {
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

double bits_per_value(std::uint64_t bytes, std::uint64_t n_values) {
  return n_values == 0 ? 0.0 : static_cast<double>(bytes) * 8 / static_cast<double>(n_values);
}

json tensor_json(const tensor_report& t) {
  return {{"name", t.name},
          {"tensor_type", tensor_type(t.name)},
          {"dtype", t.dtype},
          {"shape", t.shape},
          {"n_values", t.n_values},
          {"codec", std::string(t.coding())},
          {"original_bytes", t.original_bytes},
          {"stored_bytes", t.stored_bytes},
          {"bits_per_value", bits_per_value(t.stored_bytes, t.n_values)},
          {"ratio", ratio_of(t.original_bytes, t.stored_bytes)},
          {"escape_tiles", t.n_escape_tiles},
          {"raw_tiles", t.n_raw_tiles},
          {"digest", fmt::format("{:016x}", t.digest)}};
}

json file_json(const file_report& file) {
  json tensors = json::array();
  for (const auto& t : file.tensors) tensors.push_back(tensor_json(t));
  return {{"name", file.name},
          {"safetensors", file.is_safetensors},
          {"compressed", file.is_compressed},
          {"original_bytes", file.original_bytes},
          {"stored_bytes", file.stored_bytes},
          {"ratio", ratio_of(file.original_bytes, file.stored_bytes)},
          {"tensors", std::move(tensors)}};
}

json report_json(const job& what, const model_report& report) {
  json out = {{"command", std::string(what.command)}, {"source", what.source}};
  if (what.destination) out["destination"] = *what.destination;
  if (what.command == "verify") out["against"] = or_null(what.against);
  if (what.layout) out["layout"] = *what.layout;
  if (what.codec) out["codec"] = *what.codec;
  if (what.threads) out["threads"] = *what.threads;
  if (what.backend) out["backend"] = *what.backend;
  if (what.destination) {
    out["dry_run"] = what.dry_run;
    out["verified"] = what.verified;
  }
  out["original_bytes"] = report.original_bytes;
  out["stored_bytes"] = report.stored_bytes;
  out["ratio"] = ratio_of(report.original_bytes, report.stored_bytes);
  out["n_tensors"] = report.n_tensors;
  out["seconds"] = report.seconds;
  out["files"] = json::array();
  for (const auto& file : report.files) out["files"].push_back(file_json(file));
  return out;
}

}  // namespace

std::string json_of(const error& e) {
  const auto text = [](const std::string& s) { return s.empty() ? json(nullptr) : json(s); };
  return text_of({{"error",
                   {{"code", static_cast<std::int32_t>(e.code)},
                    {"name", std::string(to_string(e.code))},
                    {"message", e.message},
                    {"file", text(e.file)},
                    {"tensor", text(e.tensor)},
                    {"byte_offset", or_null(e.byte_offset)},
                    {"chunk", or_null(e.chunk)}}}});
}

std::string json_of(const job& what, const model_report& report) {
  return text_of(report_json(what, report));
}

std::string json_of(const job& what, const model_report& report, const std::vector<type_summary>& types) {
  json out = report_json(what, report);
  out["tensor_types"] = json::array();
  for (const auto& t : types) {
    out["tensor_types"].push_back({{"tensor_type", t.type},
                                   {"dtype", t.dtype},
                                   {"n_tensors", t.n_tensors},
                                   {"shapes", t.shapes},
                                   {"codecs", t.codecs},
                                   {"n_values", t.n_values},
                                   {"original_bytes", t.original_bytes},
                                   {"stored_bytes", t.stored_bytes},
                                   {"bits_per_value", bits_per_value(t.stored_bytes, t.n_values)},
                                   {"ratio", ratio_of(t.original_bytes, t.stored_bytes)},
                                   {"escape_tiles", t.n_escape_tiles},
                                   {"raw_tiles", t.n_raw_tiles}});
  }
  return text_of(out);
}

std::string json_of(const calibration_summary& summary) {
  return text_of({{"command", "calibrate"},
                  {"destination", summary.destination},
                  {"n_tensors", summary.n_tensors},
                  {"n_types", summary.n_types},
                  {"n_dtypes", summary.n_dtypes}});
}

std::string json_of(const bench::codec_bench_report& report) {
  json out = {{"memcpy_gb_s", report.memcpy_gb_s}, {"threads", report.threads}, {"input", report.input},
              {"bytes", report.n_bytes},           {"backend", report.backend}, {"codecs", json::array()}};
  for (const auto& row : report.rows) {
    json entry = {{"codec", row.name},
                  {"ratio", row.ratio},
                  {"encode_gb_s", row.encode_gb_s},
                  {"decode_gb_s", row.decode_gb_s}};
    if (row.encode_auto_gb_s) entry["encode_auto_gb_s"] = *row.encode_auto_gb_s;
    out["codecs"].push_back(std::move(entry));
  }
  return text_of(out);
}

std::string json_of(const machine_report& machine) {
  const auto text = [](const std::string& s) { return s.empty() ? json(nullptr) : json(s); };
  json out = {{"version", std::string(kVersion)},
              {"frame_format", kFrameFormatVersion},
              {"container_format", kContainerFormatVersion},
              {"backend", text(machine.backend)},
              {"backend_error", text(machine.backend_error)},
              {"forced_backend", text(machine.forced)},
              {"backends", json::array()}};
  for (const auto& b : machine.backends) {
    out["backends"].push_back({{"name", std::string(b.name)},
                               {"supported", b.supported},
                               {"chosen", b.chosen},
                               {"reason", b.reason}});
  }
  out["cuda"] = {
      {"available", !machine.gpus.empty()}, {"reason", text(machine.gpu_error)}, {"devices", json::array()}};
  for (const auto& gpu : machine.gpus) {
    out["cuda"]["devices"].push_back(
        {{"index", gpu.index},
         {"name", gpu.name},
         {"compute_capability", fmt::format("{}.{}", gpu.compute_major, gpu.compute_minor)},
         {"multiprocessors", gpu.multiprocessors},
         {"memory_bytes", gpu.memory_bytes},
         {"l2_bytes", gpu.l2_bytes},
         {"driver", gpu.driver}});
  }
  out["transports"] = json::array();
  for (const auto& t : machine.transports) {
    out["transports"].push_back({{"name", t.name}, {"available", t.available}, {"detail", t.detail}});
  }
  out["cpu"] = machine.cpu;
  out["threads"] = machine.threads;
  out["memory_bytes"] = machine.memory_bytes;
  out["available_bytes"] = machine.available_bytes;
  out["page_bytes"] = machine.page_bytes;
  out["huge_pages"] = machine.huge_pages;
  out["compiler"] = machine.compiler;
  out["libraries"] = json::object();
  for (const auto& [name, version] : machine.libraries) out["libraries"][name] = version;
  return text_of(out);
}

std::string json_library_version() {
  return fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                     NLOHMANN_JSON_VERSION_PATCH);
}

}  // namespace tersor::cli
