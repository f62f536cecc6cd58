#include "model/report_tables.hpp"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "model/report_text.hpp"
#include "model/svg_figures.hpp"

namespace tersor::model_detail {
namespace {

constexpr std::size_t kOpenRows = 40;
constexpr std::size_t kMostRows = 5000;

/// Collects rows; the first column is a heading of its row. Cells are escaped.
class html_table {
 public:
  html_table(std::string_view label, std::initializer_list<std::string_view> columns)
      : label_(escape_html(label)) {
    head_ = "<thead><tr>";
    for (const std::string_view column : columns)
      head_ += "<th scope=\"col\">" + escape_html(column) + "</th>";
    head_ += "</tr></thead>\n";
  }

  void row(std::string_view heading, const std::vector<std::string>& cells, std::string_view css_class = {}) {
    rows_ += "<tr><th scope=\"row\"";
    if (!css_class.empty()) rows_ += " class=\"" + std::string(css_class) + "\"";
    rows_ += ">" + escape_html(heading) + "</th>";
    for (const std::string& cell : cells) rows_ += "<td>" + escape_html(cell) + "</td>";
    rows_ += "</tr>\n";
  }

  /// A heading over the rows that follow.
  void group(std::string_view heading, std::size_t n_columns) {
    rows_ += "<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"" + std::to_string(n_columns) + "\">" +
             escape_html(heading) + "</th></tr>\n";
  }

  [[nodiscard]] std::string finish() const {
    return "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"" + label_ + "\"><table>\n" +
           head_ + "<tbody>\n" + rows_ + "</tbody></table></div>\n";
  }

 private:
  std::string label_;
  std::string head_;
  std::string rows_;
};

std::string three(double value) {
  return format_fixed(value, 3);
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (const std::uint64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

double ratio(std::uint64_t original, std::uint64_t stored) {
  return stored == 0 ? 1 : static_cast<double>(original) / static_cast<double>(stored);
}

std::string tensor_rows(std::span<const tensor_analysis> tensors, bool grouped) {
  html_table table("Tensors", {"Tensor", "Dtype", "Shape", "Size", "Entropy", "Top 3", "Top 16", "Ideal",
                               "rank", "top16"});
  constexpr std::size_t kColumns = 10;
  const std::string* file = nullptr;
  for (const tensor_analysis& t : tensors) {
    if (grouped && (file == nullptr || *file != t.file)) table.group(t.file, kColumns);
    file = &t.file;
    table.row(t.name,
              {std::string(to_string(t.type)), shape_text(t.shape), format_bytes(t.n_bytes), three(t.entropy),
               format_percent(t.coverage[3]), format_percent(t.coverage[16]), format_ratio(t.ideal_ratio),
               format_ratio(ratio(t.n_bytes, t.rank_bytes)), format_ratio(ratio(t.n_bytes, t.top16_bytes))},
              "tensor");
  }
  return table.finish();
}

}  // namespace

std::string exponent_table(const dtype_summary& d) {
  html_table table("Exponents of " + std::string(to_string(d.type)),
                   {"Exponent field", "Values", "Share", "Coded in rank's"});
  const codebook book = book_of(d.type, d.shared.counts);
  const auto total = static_cast<double>(d.shared.n_values);
  for (unsigned symbol = 0; symbol < d.shared.counts.counts.size(); ++symbol) {
    const std::uint64_t count = d.shared.counts.counts[symbol];
    if (count == 0) continue;
    const int level = level_of(book, symbol);
    const int power = static_cast<int>(symbol) - exponent_bias(d.type);
    table.row(std::to_string(symbol) + " (power " + std::to_string(power) + ")",
              {format_count(count), format_percent(static_cast<double>(count) / total),
               level > 4 ? "escapes" : "level " + std::to_string(level)});
  }
  return table.finish();
}

std::string bits_table(const dtype_summary& d) {
  html_table table("Bits a value", {"Part", "top16", "rank"});
  const auto row = [&](std::string_view name, double top16, double rank) {
    table.row(name, {format_fixed(top16, 4), format_fixed(rank, 4)});
  };
  row("sign and mantissa", d.top16.rest, d.rank.rest);
  for (std::size_t i = 0; i < d.rank.levels.size(); ++i) {
    row("codes of level " + std::to_string(i + 1), d.top16.levels[i], d.rank.levels[i]);
  }
  row("escapes", d.top16.escapes, d.rank.escapes);
  row("exponents as they are", d.top16.raw_symbols, d.rank.raw_symbols);
  row("records, headers, rounding", d.top16.records, d.rank.records);
  row("all", d.top16.total(), d.rank.total());
  return table.finish();
}

std::string coverage_table(const dtype_summary& d) {
  html_table table("Coverage", {"k", "All tensors together", "Lowest tensor", "Highest tensor"});
  for (std::size_t k = 1; k < d.shared.coverage.size(); ++k) {
    table.row(std::to_string(k), {format_percent(d.shared.coverage[k]), format_percent(d.lowest_coverage[k]),
                                  format_percent(d.highest_coverage[k])});
  }
  return table.finish();
}

std::string types_table(std::span<const type_summary> types) {
  html_table table("Tensor types", {"Type", "Tensors, size", "Entropy", "Ideal", "rank", "top16"});
  for (const type_summary& type : types.first(std::min(types.size(), kMostRows))) {
    const group_sums& s = type.sums;
    table.row(type.name,
              {format_count(s.n_tensors) + ", " + format_bytes(s.n_bytes), three(s.entropy()),
               format_ratio(s.ideal_ratio()), format_ratio(s.rank_ratio()), format_ratio(s.top16_ratio())},
              "tensor");
  }
  return table.finish();
}

std::string kv_table(std::span<const kv_layer> layers) {
  html_table table("KV cache", {"Layer", "Entropy of keys", "of values", "rank on keys", "on values"});
  for (const kv_layer& layer : layers) {
    table.row(std::to_string(layer.layer),
              {three(layer.keys.entropy()), three(layer.values.entropy()),
               format_ratio(layer.keys.rank_ratio()), format_ratio(layer.values.rank_ratio())});
  }
  return table.finish();
}

std::string dtypes_table(std::span<const dtype_summary> dtypes) {
  html_table table("Dtypes", {"Dtype, codebook", "Tensors", "Size", "Entropy", "Ideal", "rank", "top16"});
  for (const dtype_summary& d : dtypes) {
    if (d.own.n_values == 0) continue;
    const std::string name(to_string(d.type));
    const std::vector<std::string> counts = {format_count(d.own.n_tensors), format_bytes(d.own.n_bytes)};
    const auto row = [&](const std::string& heading, double entropy, double ideal, double rank,
                         double top16) {
      table.row(heading, {counts[0], counts[1], three(entropy), format_ratio(ideal), format_ratio(rank),
                          format_ratio(top16)});
    };
    row(name + ", one per tensor", d.own.entropy(), d.own.ideal_ratio(), d.own.rank_ratio(),
        d.own.top16_ratio());
    row(name + ", one for all", d.shared.entropy, d.shared.ideal_ratio,
        ratio(d.own.n_bytes, d.shared.rank_bytes), ratio(d.own.n_bytes, d.shared.top16_bytes));
  }
  return table.finish();
}

std::string tensors_table(const analysis& a) {
  const std::span<const tensor_analysis> all(a.tensors);
  const std::size_t n_open = std::min(all.size(), kOpenRows);
  const std::size_t n_shown = std::min(all.size(), kMostRows);
  const bool grouped = !all.empty() && all.front().file != all.back().file;
  std::string out = tensor_rows(all.first(n_open), grouped);
  if (n_shown > n_open) {
    out += "<details><summary>" + format_count(n_shown - n_open) + " more tensors</summary>\n" +
           tensor_rows(all.subspan(n_open, n_shown - n_open), grouped) + "</details>\n";
  }
  if (all.size() > n_shown) {
    out += "<p class=\"explain\">" + format_count(all.size() - n_shown) +
           " further tensors are in the JSON form of this analysis.</p>\n";
  }
  return out;
}

}  // namespace tersor::model_detail
