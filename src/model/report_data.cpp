#include "model/report_data.hpp"

#include <algorithm>
#include <charconv>

namespace tersor::model_detail {
namespace {

constexpr std::uint64_t kMinBandValues = 1024;
/// More is no layer but a number in a name.
constexpr std::uint64_t kMostLayers = 65536;

double ratio_of(double original, double stored) noexcept {
  return stored > 0 && original > 0 ? original / stored : 1;
}

std::optional<bool> key_or_value(std::string_view part) {
  for (const std::string_view key : {"k", "key", "keys", "k_cache", "key_cache"}) {
    if (part == key) return true;
  }
  for (const std::string_view value : {"v", "value", "values", "v_cache", "value_cache"}) {
    if (part == value) return false;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> number_of(std::string_view part) {
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(part.data(), part.data() + part.size(), number);
  if (part.empty() || ec != std::errc{} || end != part.data() + part.size()) return std::nullopt;
  return number;
}

void add_coverage(dtype_summary& d, const tensor_analysis& t, bool first) {
  for (std::size_t k = 0; k < t.coverage.size(); ++k) {
    d.lowest_coverage[k] = first ? t.coverage[k] : std::min(d.lowest_coverage[k], t.coverage[k]);
    d.highest_coverage[k] = first ? t.coverage[k] : std::max(d.highest_coverage[k], t.coverage[k]);
  }
}

/// A tensor's parts times its values; one that would be stored as it is has neither codes nor records.
bit_parts weighted_parts(codec c, const tensor_analysis& t, const codebook& book,
                         std::uint64_t predicted_bytes) {
  bit_parts parts = split_bits(c, t.type, t.counts, book);
  if (predicted_bytes >= t.n_bytes) {
    parts = {.rest = parts.rest, .raw_symbols = static_cast<double>(symbol_bits(t.type))};
  }
  return parts.scaled(static_cast<double>(t.n_values));
}

/// The mean over `n_values`; what the predicted size has beyond codes, rests and records is rounding and
/// headers.
bit_parts mean_parts(const bit_parts& sum, std::uint64_t n_values, std::uint64_t predicted_bytes) {
  if (n_values == 0) return {};
  bit_parts mean = sum.scaled(1 / static_cast<double>(n_values));
  const double predicted = 8 * static_cast<double>(predicted_bytes) / static_cast<double>(n_values);
  mean.records = std::max(0.0, mean.records + predicted - mean.total());
  return mean;
}

dtype_summary summarize_dtype(const analysis& a, dtype type, const tensor_analysis& shared) {
  dtype_summary d{.type = type, .shared = shared};
  bool banded = false;
  for (const tensor_analysis& t : a.tensors) {
    if (t.type != type) continue;
    d.own.add(t);
    if (t.n_values == 0) continue;
    const codebook book = book_of(type, t.counts);
    d.rank += weighted_parts(codec::rank, t, book, t.rank_bytes);
    d.top16 += weighted_parts(codec::top16, t, book, t.top16_bytes);
    if (t.n_values < kMinBandValues) continue;
    add_coverage(d, t, !banded);
    banded = true;
  }
  if (!banded) add_coverage(d, shared, true);
  d.rank = mean_parts(d.rank, d.own.n_values, d.own.rank_bytes);
  d.top16 = mean_parts(d.top16, d.own.n_values, d.own.top16_bytes);
  return d;
}

std::vector<kv_layer> summarize_kv(const analysis& a) {
  std::map<std::uint64_t, kv_layer> layers;
  for (const tensor_analysis& t : a.tensors) {
    const auto name = parse_kv_name(t.name);
    if (!name || t.n_values == 0) continue;
    kv_layer& layer = layers[name->layer];
    layer.layer = name->layer;
    (name->is_key ? layer.keys : layer.values).add(t);
  }
  std::vector<kv_layer> list;
  bool any_keys = false;
  bool any_values = false;
  for (const auto& [number, layer] : layers) {
    any_keys = any_keys || layer.keys.n_values != 0;
    any_values = any_values || layer.values.n_values != 0;
    list.push_back(layer);
  }
  if (!any_keys || !any_values) list.clear();
  return list;
}

}  // namespace

void group_sums::add(const tensor_analysis& t) {
  ++n_tensors;
  n_values += t.n_values;
  n_bytes += t.n_bytes;
  rank_bytes += t.rank_bytes;
  top16_bytes += t.top16_bytes;
  const auto n = static_cast<double>(t.n_values);
  entropy_bits += t.entropy * n;
  ideal_bits += (8.0 * value_bytes(t.type) - symbol_bits(t.type) + t.entropy) * n;
}

void group_sums::add(const group_sums& other) {
  n_tensors += other.n_tensors;
  n_values += other.n_values;
  n_bytes += other.n_bytes;
  rank_bytes += other.rank_bytes;
  top16_bytes += other.top16_bytes;
  entropy_bits += other.entropy_bits;
  ideal_bits += other.ideal_bits;
}

double group_sums::entropy() const noexcept {
  return n_values == 0 ? 0 : entropy_bits / static_cast<double>(n_values);
}

double group_sums::ideal_ratio() const noexcept {
  return ratio_of(8 * static_cast<double>(n_bytes), ideal_bits);
}

double group_sums::rank_ratio() const noexcept {
  return ratio_of(static_cast<double>(n_bytes), static_cast<double>(rank_bytes));
}

double group_sums::top16_ratio() const noexcept {
  return ratio_of(static_cast<double>(n_bytes), static_cast<double>(top16_bytes));
}

double report_data::total_ratio(double coded_bytes) const noexcept {
  return ratio_of(static_cast<double>(total_bytes()), coded_bytes + static_cast<double>(other_bytes));
}

std::optional<kv_name> parse_kv_name(std::string_view name) {
  const std::size_t last_dot = name.rfind('.');
  if (last_dot == std::string_view::npos) return std::nullopt;
  const std::string_view last = name.substr(last_dot + 1);
  std::string_view before = name.substr(0, last_dot);
  if (const std::size_t dot = before.rfind('.'); dot != std::string_view::npos)
    before = before.substr(dot + 1);
  const bool number_last = number_of(last).has_value();
  const auto layer = number_of(number_last ? last : before);
  const auto is_key = key_or_value(number_last ? before : last);
  if (!layer || *layer >= kMostLayers || !is_key) return std::nullopt;
  return kv_name{.layer = *layer, .is_key = *is_key};
}

report_data summarize(const analysis& a) {
  report_data data{.other_bytes = a.other_bytes, .n_other_tensors = a.n_other_tensors, .n_files = a.n_files};
  std::map<std::string, group_sums> types;
  for (const tensor_analysis& t : a.tensors) {
    data.all.add(t);
    types[tensor_type(t.name)].add(t);
  }
  for (const auto& [type, shared] : a.overall) data.dtypes.push_back(summarize_dtype(a, type, shared));
  for (auto& [name, sums] : types) data.types.push_back({.name = name, .sums = sums});
  const auto by_bytes = [](const auto& sums_of) {
    return [sums_of](const auto& x, const auto& y) { return sums_of(x).n_bytes > sums_of(y).n_bytes; };
  };
  std::ranges::stable_sort(data.dtypes, by_bytes([](const auto& d) -> const group_sums& { return d.own; }));
  std::ranges::stable_sort(data.types, by_bytes([](const auto& t) -> const group_sums& { return t.sums; }));
  data.kv = summarize_kv(a);
  return data;
}

}  // namespace tersor::model_detail
