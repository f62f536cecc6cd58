// One self-contained HTML page of an analysis: no scripts, no requests, readable without the figures.
#include "model/report_data.hpp"
#include "model/report_style.hpp"
#include "model/report_tables.hpp"
#include "model/report_text.hpp"
#include "model/svg_figures.hpp"
#include <tersor/model.hpp>
#include <tersor/version.hpp>

namespace tersor {
namespace {

using namespace model_detail;

struct legend_item {
  std::string css_class;
  std::string text;
};

std::string legend(const std::vector<legend_item>& items) {
  std::string out = "<ul class=\"legend\">";
  for (const legend_item& item : items) {
    out += "<li><i class=\"" + item.css_class + "\"></i>" + escape_html(item.text) + "</li>";
  }
  return out + "</ul>\n";
}

struct figure_text {
  std::string heading;
  std::string explanation;
};

std::string figure(const figure_text& text, const std::string& svg, const std::string& below,
                   const std::string& table) {
  std::string out = "<figure>\n<figcaption><h3>" + escape_html(text.heading) +
                    "</h3><span class=\"explain\">" + escape_html(text.explanation) +
                    "</span></figcaption>\n" + svg + below;
  if (!table.empty()) out += "<details><summary>Table</summary>\n" + table + "</details>\n";
  return out + "</figure>\n";
}

std::string key_number(std::string_view name, const std::string& value, const std::string& detail) {
  return "<div><dt>" + std::string(name) + "</dt><dd>" + escape_html(value) + "<small>" +
         escape_html(detail) + "</small></dd></div>\n";
}

std::string plural(std::uint64_t n, std::string_view noun) {
  return format_count(n) + " " + std::string(noun) + (n == 1 ? "" : "s");
}

std::string key_numbers(const report_data& data) {
  const std::uint64_t total = data.total_bytes();
  const auto size_at = [&](double coded_bytes) {
    return format_bytes(total) + " to " +
           format_bytes(static_cast<std::uint64_t>(coded_bytes) + data.other_bytes);
  };
  const auto rank = static_cast<double>(data.all.rank_bytes);
  const auto top16 = static_cast<double>(data.all.top16_bytes);
  const double ideal = data.all.ideal_bits / 8;
  return "<dl class=\"key\">\n" +
         key_number("Tensors", format_count(data.all.n_tensors + data.n_other_tensors),
                    "in " + plural(data.n_files, "file")) +
         key_number("Size", format_bytes(total), format_bytes(data.all.n_bytes) + " with a coded exponent") +
         key_number("rank, predicted", format_ratio(data.total_ratio(rank)), size_at(rank)) +
         key_number("top16, predicted", format_ratio(data.total_ratio(top16)), size_at(top16)) +
         key_number("Ideal (entropy)", format_ratio(data.total_ratio(ideal)), size_at(ideal)) +
         key_number("Entropy", format_fixed(data.all.entropy(), 3), "bits an exponent, mean of the tensors") +
         "</dl>\n";
}

std::vector<legend_item> level_legend(const dtype_summary& d) {
  const auto& c = d.shared.coverage;
  std::vector<legend_item> items = {{"l1", "level 1: top 3, " + format_percent(c[3])},
                                    {"l2", "level 2: to top 6, " + format_percent(c[6])},
                                    {"l3", "level 3: to top 9, " + format_percent(c[9])},
                                    {"l4", "level 4: to top 16, " + format_percent(c[16])}};
  if (c[16] < 1) items.push_back({"l5", "escapes, " + format_percent(1 - c[16])});
  return items;
}

/// Colours of the bits figure, with rank's share of each.
std::vector<legend_item> parts_legend(const dtype_summary& d) {
  const bit_parts& r = d.rank;
  const auto named = [](std::string_view name, double bits) {
    return std::string(name) + ", " + format_fixed(bits, 4);
  };
  std::vector<legend_item> items = {{"rest", "sign and mantissa"},
                                    {"raw", named("exponent as it is", r.raw_symbols)}};
  for (std::size_t i = 0; i < r.levels.size(); ++i) {
    const std::string level = std::to_string(i + 1);
    items.push_back(
        {"l" + level, named(i == 0 ? "level 1 (top16: 4-bit codes)" : "level " + level, r.levels[i])});
  }
  items.push_back({"l5", named("escapes", r.escapes)});
  items.push_back({"records", named("records, headers, rounding", r.records)});
  items.push_back({"ideal", "entropy"});
  return items;
}

std::string dtype_section(const dtype_summary& d, std::size_t number) {
  const std::string name(to_string(d.type));
  const std::string id = "d" + std::to_string(number);
  if (d.shared.n_values == 0) return {};
  std::string out = "<section aria-labelledby=\"" + id + "\">\n<h2 id=\"" + id + "\">" + name + ": " +
                    plural(d.own.n_tensors, "tensor") + ", " + format_count(d.own.n_values) +
                    " values</h2>\n<div class=\"figures\">\n";
  out += figure({"Which exponents occur", "Share of the values per exponent, of " +
                                              format_count(std::uint64_t{1} << symbol_bits(d.type)) +
                                              " possible ones. Colours: how rank codes them."},
                histogram_figure(d, false, id + "-lin"), legend(level_legend(d)), exponent_table(d));
  out += figure(
      {"The rare ones", "The same on a logarithmic scale: what the longer codes and the escapes are for."},
      histogram_figure(d, true, id + "-log"), legend(level_legend(d)), {});
  out += figure({"Where the bits go",
                 "Mean over all values, each tensor with its own codebook. Numbers in the legend: rank."},
                bits_figure(d, id + "-bits"), legend(parts_legend(d)), bits_table(d));
  out += figure({"Coverage", "Share of values whose exponent is among the k most frequent ones."},
                coverage_figure(d, id + "-cover"),
                legend({{"line keys", "all tensors under one codebook"},
                        {"band", "range of the tensors of 1,024 values or more, each with its own"}}),
                coverage_table(d));
  return out + "</div>\n</section>\n";
}

std::string types_section(const report_data& data) {
  const std::string explanation =
      data.types.size() > kMostTypes
          ? "The " + std::to_string(kMostTypes) + " largest of " + format_count(data.types.size()) + " types."
          : "Layers counted together.";
  return "<section aria-labelledby=\"types\">\n<h2 id=\"types\">Tensor types</h2>\n<div "
         "class=\"figures\">\n" +
         figure({"Ratio by tensor type", explanation + " Bars begin at 1, which is no gain."},
                types_figure(data.types, "types-fig"),
                legend({{"l2", "rank, predicted"}, {"mark", "ideal: the entropy of each tensor"}}), {}) +
         "<div class=\"card tight\">\n" + types_table(data.types) + "</div>\n</div>\n</section>\n";
}

std::string kv_section(const report_data& data) {
  if (data.kv.empty()) return {};
  const std::string names = legend({{"line keys", "keys"}, {"line values", "values"}});
  return "<section aria-labelledby=\"kv\">\n<h2 id=\"kv\">KV cache by layer</h2>\n<div class=\"figures\">\n" +
         figure({"Entropy", "Bits an exponent of keys and values needs at least."},
                kv_figure(data.kv, kv_measure::entropy, "kv-entropy"), names, kv_table(data.kv)) +
         figure({"Ratio", "Original size by the size predicted for rank."},
                kv_figure(data.kv, kv_measure::ratio, "kv-ratio"), names, {}) +
         "</div>\n</section>\n";
}

std::string body_of(const analysis& a, const report_data& data) {
  if (data.all.n_values == 0) {
    return "<section><h2>Nothing to code</h2>\n<p>No tensor has values with an exponent that Tersor codes "
           "(BF16, F16, "
           "F32, F8_E4M3, F8_E5M2): compressing would store " +
           format_bytes(data.other_bytes) + " in " + plural(data.n_other_tensors, "tensor") +
           " as they are, with digests.</p></section>\n";
  }
  std::string out =
      "<section aria-labelledby=\"overall\">\n<h2 id=\"overall\">By dtype and codebook</h2>\n<div "
      "class=\"card\">\n" +
      dtypes_table(data.dtypes) + "</div>\n</section>\n";
  if (data.n_other_tensors != 0) {
    out += "<p class=\"explain\">Not counted: " + plural(data.n_other_tensors, "tensor") +
           " of other dtypes or left out, " + format_bytes(data.other_bytes) +
           "; they count as stored in the ratios on top.</p>\n";
  }
  for (std::size_t i = 0; i < data.dtypes.size(); ++i) out += dtype_section(data.dtypes[i], i);
  out += kv_section(data);
  out += types_section(data);
  out += "<section aria-labelledby=\"tensors\">\n<h2 id=\"tensors\">Tensors</h2>\n<div class=\"card\">\n" +
         tensors_table(a) + "</div>\n</section>\n";
  return out;
}

}  // namespace

std::string to_html(const analysis& a, std::string_view title) {
  const report_data data = summarize(a);
  const std::string name = escape_html(title);
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n<title>";
  out += name + " - exponent analysis</title>\n<style>" + std::string(kReportStyle) +
         "</style>\n</head>\n<body>\n<main>\n";
  out += "<header>\n<h1>" + name +
         "</h1>\n<p class=\"lead\">Exponent analysis: how far its floating-point exponents compress without "
         "loss.</p>\n" +
         key_numbers(data) + "</header>\n" + body_of(a, data);
  out +=
      "<footer>Counted exactly, over all values. Predicted sizes estimate only the rounding of each tile; "
      "file headers are not "
      "included. Tersor " +
      std::string(kVersion) + ".</footer>\n</main>\n</body>\n</html>\n";
  return out;
}

}  // namespace tersor
