// JSON of an analysis; docs/json.md describes the members.
#include <nlohmann/json.hpp>

#include "model/report_data.hpp"
#include <tersor/model.hpp>

namespace tersor {
namespace {

using json = nlohmann::ordered_json;
using model_detail::bit_parts;
using model_detail::group_sums;

json ratios(const group_sums& sums) {
  return {{"tensors", sums.n_tensors},
          {"values", sums.n_values},
          {"bytes", sums.n_bytes},
          {"entropy", sums.entropy()},
          {"ideal_ratio", sums.ideal_ratio()},
          {"rank_bytes", sums.rank_bytes},
          {"rank_ratio", sums.rank_ratio()},
          {"top16_bytes", sums.top16_bytes},
          {"top16_ratio", sums.top16_ratio()}};
}

double ratio(std::uint64_t original, std::uint64_t stored) {
  return stored == 0 ? 1 : static_cast<double>(original) / static_cast<double>(stored);
}

/// The members that one histogram gives.
json statistics(const tensor_analysis& t) {
  json counts = json::array();
  for (std::size_t symbol = 0; symbol < t.counts.counts.size(); ++symbol) {
    if (t.counts.counts[symbol] != 0) counts.push_back(json::array({symbol, t.counts.counts[symbol]}));
  }
  return {{"values", t.n_values},
          {"bytes", t.n_bytes},
          {"entropy", t.entropy},
          {"coverage", t.coverage},
          {"ideal_ratio", t.ideal_ratio},
          {"rank_bits", t.rank_bits},
          {"rank_bytes", t.rank_bytes},
          {"rank_ratio", ratio(t.n_bytes, t.rank_bytes)},
          {"top16_bits", t.top16_bits},
          {"top16_bytes", t.top16_bytes},
          {"top16_ratio", ratio(t.n_bytes, t.top16_bytes)},
          {"counts", std::move(counts)}};
}

json parts_json(const bit_parts& parts) {
  return {{"sign_mantissa", parts.rest},        {"levels", parts.levels},   {"escapes", parts.escapes},
          {"raw_exponents", parts.raw_symbols}, {"records", parts.records}, {"total", parts.total()}};
}

json tensor_json(const tensor_analysis& t) {
  json out = {{"file", t.file},
              {"name", t.name},
              {"tensor_type", tensor_type(t.name)},
              {"dtype", to_string(t.type)},
              {"shape", t.shape}};
  out.update(statistics(t));
  return out;
}

}  // namespace

std::string to_json(const analysis& a) {
  const auto data = model_detail::summarize(a);
  const auto total_ratio = [&](std::uint64_t bytes) { return data.total_ratio(static_cast<double>(bytes)); };
  json out;
  out["total"] = {{"files", data.n_files},
                  {"tensors", data.all.n_tensors + data.n_other_tensors},
                  {"bytes", data.total_bytes()},
                  {"other_tensors", data.n_other_tensors},
                  {"other_bytes", data.other_bytes},
                  {"ideal_ratio", data.total_ratio(data.all.ideal_bits / 8)},
                  {"rank_ratio", total_ratio(data.all.rank_bytes)},
                  {"top16_ratio", total_ratio(data.all.top16_bytes)}};
  out["dtypes"] = json::object();
  for (const auto& d : data.dtypes) {
    out["dtypes"][std::string(to_string(d.type))] = {{"shared_codebook", statistics(d.shared)},
                                                     {"own_codebooks", ratios(d.own)},
                                                     {"rank_parts", parts_json(d.rank)},
                                                     {"top16_parts", parts_json(d.top16)}};
  }
  out["tensor_types"] = json::array();
  for (const auto& type : data.types) {
    json row = {{"tensor_type", type.name}};
    row.update(ratios(type.sums));
    out["tensor_types"].push_back(std::move(row));
  }
  out["tensors"] = json::array();
  for (const tensor_analysis& t : a.tensors) out["tensors"].push_back(tensor_json(t));
  return out.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace tersor
