#include <nlohmann/json.hpp>

#include "json.hpp"

namespace tersor::cli {
namespace {

using json = nlohmann::ordered_json;

json or_null(std::optional<double> value) {
  return value ? json(*value) : json(nullptr);
}

json row_json(const bench::gpu_row& row) {
  return {{"codec", row.codec},
          {"dtype", row.type},
          {"data", row.data},
          {"bytes", row.n_bytes},
          {"ratio", row.ratio},
          {"coverage", or_null(row.coverage)},
          {"encode_gb_s", row.encode_gb_s},
          {"encode_canonical_gb_s", or_null(row.encode_canonical_gb_s)},
          {"decode_gb_s", row.decode_gb_s},
          {"encode_roofline", or_null(row.encode_roofline)},
          {"decode_roofline", or_null(row.decode_roofline)},
          {"codebook_gb_s", or_null(row.codebook_gb_s)},
          {"graph", row.graph},
          {"peer", row.peer}};
}

json latency_json(const bench::gpu_latency_row& row) {
  return {{"codec", row.codec},
          {"bytes", row.n_bytes},
          {"encode_us", row.encode_us},
          {"decode_us", row.decode_us},
          {"encode_graph_us", row.encode_graph_us},
          {"decode_graph_us", row.decode_graph_us}};
}

json page_json(const bench::gpu_page_row& row) {
  const bool slots = row.slot_bytes != 0;
  return {{"codec", row.codec},
          {"layout", row.layout},
          {"kind", row.kind},
          {"data", row.data},
          {"pages", row.pages},
          {"pools", row.pools},
          {"bytes", row.n_bytes},
          {"slot_bytes", slots ? json(row.slot_bytes) : json(nullptr)},
          {"overflow_pages", slots ? json(row.overflow_pages) : json(nullptr)},
          {"ratio", row.ratio},
          {"encode_gb_s", row.encode_gb_s},
          {"decode_gb_s", row.decode_gb_s},
          {"encode_of_contiguous", row.encode_of_contiguous},
          {"decode_of_contiguous", row.decode_of_contiguous},
          {"encode_roofline", row.encode_roofline},
          {"decode_roofline", row.decode_roofline}};
}

bench::gpu_row row_of(const json& from) {
  return {.codec = from.at("codec").get<std::string>(),
          .type = from.at("dtype").get<std::string>(),
          .data = from.at("data").get<std::string>(),
          .n_bytes = from.at("bytes").get<std::uint64_t>(),
          .ratio = from.at("ratio").get<double>(),
          .encode_gb_s = from.at("encode_gb_s").get<double>(),
          .decode_gb_s = from.at("decode_gb_s").get<double>(),
          .graph = from.value("graph", false),
          .peer = true};
}

}  // namespace

std::string json_of(const bench::gpu_bench_report& report, const bench_run& run) {
  json out = {{"device", report.device},
              {"driver", report.driver},
              {"commit", run.commit},
              {"command", run.command},
              {"date", run.date},
              {"copy_gb_s", report.copy_gb_s},
              {"copy_engine_gb_s", report.copy_engine_gb_s},
              {"copy_kernel_gb_s", report.copy_kernel_gb_s},
              {"rows", json::array()},
              {"latency", json::array()},
              {"pages", json::array()}};
  for (const auto& row : report.rows) out["rows"].push_back(row_json(row));
  for (const auto& row : report.latency) out["latency"].push_back(latency_json(row));
  for (const auto& row : report.pages) out["pages"].push_back(page_json(row));
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

result<std::vector<bench::gpu_row>> peer_rows_of(const std::string& text) {
  try {
    std::vector<bench::gpu_row> rows;
    const json document = json::parse(text);
    for (const json& from : document.at("rows")) rows.push_back(row_of(from));
    return rows;
  } catch (const json::exception& e) {
    return fail(errc::malformed, std::string("no rows of a peer: ") + e.what());
  }
}

}  // namespace tersor::cli
