// Tables of measured plans and their JSON.
#include <nlohmann/json.hpp>

#include <tersor/gemm.hpp>

namespace tersor::cuda {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kVersionMember = "tersor_gemm_plans";
constexpr std::uint64_t kTableVersion = 0;

tl::unexpected<error> fail_json(std::string message) {
  return fail(errc::malformed, "plan table: " + std::move(message));
}

ordered_json json_of(const gemm_plan_table::entry& e) {
  return {{"layout", std::string(to_string(e.shape.layout))},
          {"dtype", std::string(to_string(e.shape.type))},
          {"rows", e.shape.rows},
          {"cols", e.shape.cols},
          {"n", e.shape.n},
          {"groups", e.shape.groups},
          {"plan", to_string(e.plan)},
          {"time_us", e.time_us}};
}

result<std::string> text_of(const json& from, const char* member) {
  if (!from.contains(member) || !from[member].is_string())
    return fail_json(std::string("no text '") + member + "'");
  return from[member].get<std::string>();
}

result<std::uint64_t> number_of(const json& from, const char* member) {
  if (!from.contains(member) || !from[member].is_number_unsigned() ||
      from[member].get<std::uint64_t>() == 0) {
    return fail_json(std::string("no positive number '") + member + "'");
  }
  return from[member].get<std::uint64_t>();
}

result<gemm_shape> shape_of(const json& from) {
  gemm_shape shape;
  TERSOR_TRY(const std::string layout, text_of(from, "layout"));
  TERSOR_TRY(const std::string type, text_of(from, "dtype"));
  const auto parsed_layout = parse_matrix_layout(layout);
  const auto parsed_type = parse_dtype(type);
  if (!parsed_layout || !parsed_type) return fail_json("an unknown layout or dtype");
  shape.layout = *parsed_layout;
  shape.type = *parsed_type;
  TERSOR_TRY(shape.rows, number_of(from, "rows"));
  TERSOR_TRY(shape.cols, number_of(from, "cols"));
  TERSOR_TRY(shape.n, number_of(from, "n"));
  TERSOR_TRY(const std::uint64_t groups, number_of(from, "groups"));
  if (groups > 0xffffffff) return fail_json("too many groups");
  shape.groups = static_cast<std::uint32_t>(groups);
  return shape;
}

result<gemm_plan_table::entry> entry_of(const json& from) {
  if (!from.is_object()) return fail_json("a plan is no object");
  gemm_plan_table::entry e;
  TERSOR_TRY(e.shape, shape_of(from));
  TERSOR_TRY(const std::string text, text_of(from, "plan"));
  const auto plan = parse_gemm_plan(text);
  if (!plan) return fail_json("no plan in '" + text + "'");
  e.plan = *plan;
  if (from.contains("time_us")) {
    if (!from["time_us"].is_number()) return fail_json("time_us is no number");
    e.time_us = from["time_us"].get<double>();
  }
  return e;
}

bool same_matrix(const gemm_shape& a, const gemm_shape& b) noexcept {
  return a.layout == b.layout && a.type == b.type && a.rows == b.rows && a.cols == b.cols &&
         a.groups == b.groups;
}

}  // namespace

std::optional<gemm_plan> gemm_plan_table::find(const gemm_shape& shape) const noexcept {
  const entry* best = nullptr;
  for (const entry& e : entries) {
    if (!same_matrix(e.shape, shape) || e.shape.n < shape.n) continue;
    if (best == nullptr || e.shape.n < best->shape.n) best = &e;
  }
  if (best == nullptr) return std::nullopt;
  return best->plan;
}

std::string gemm_plan_table::to_json() const {
  ordered_json out = {{kVersionMember, kTableVersion}, {"device", device}, {"plans", ordered_json::array()}};
  for (const entry& e : entries) out["plans"].push_back(json_of(e));
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

result<gemm_plan_table> gemm_plan_table::from_json(std::string_view text) {
  const json root = json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains(kVersionMember)) return fail_json("not one");
  if (root[kVersionMember] != kTableVersion) {
    return fail(errc::unsupported_version, "plan table: of another version");
  }
  gemm_plan_table table;
  TERSOR_TRY(table.device, text_of(root, "device"));
  if (!root.contains("plans") || !root["plans"].is_array()) return fail_json("no plans");
  for (const json& from : root["plans"]) {
    TERSOR_TRY(entry e, entry_of(from));
    table.entries.push_back(e);
  }
  return table;
}

}  // namespace tersor::cuda
