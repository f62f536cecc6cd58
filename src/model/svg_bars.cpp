#include <algorithm>
#include <cmath>

#include "model/report_text.hpp"
#include "model/svg_canvas.hpp"
#include "model/svg_figures.hpp"

namespace tersor::model_detail {
namespace {

constexpr double kMargin = 8;
constexpr double kSpan = kFigureWidth - 2 * kMargin;

struct segment {
  std::string_view css_class;
  std::string_view name;
  double bits = 0;
};

struct stack {
  std::string label;
  double total = 0;
  std::vector<segment> segments;
};

std::vector<segment> coded_segments(const bit_parts& parts, bool nested) {
  std::vector<segment> list = {{"rest", "sign and mantissa", parts.rest}};
  constexpr std::array<std::string_view, 4> kClasses = {"l1", "l2", "l3", "l4"};
  constexpr std::array<std::string_view, 4> kNames = {"level 1 codes", "level 2 codes", "level 3 codes",
                                                      "level 4 codes"};
  for (std::size_t i = 0; i < kClasses.size(); ++i) {
    list.push_back({kClasses[i], nested ? kNames[i] : "4-bit codes", parts.levels[i]});
  }
  list.push_back({"l5", "escapes", parts.escapes});
  list.push_back({"raw", "exponents as they are", parts.raw_symbols});
  list.push_back({"records", "records, headers, rounding", parts.records});
  return list;
}

std::vector<stack> stacks_of(const dtype_summary& d) {
  const double value_bits = 8.0 * value_bytes(d.type);
  const double exponent_bits = symbol_bits(d.type);
  const double rest = value_bits - exponent_bits;
  const double entropy = d.own.entropy();
  return {{.label = "original",
           .total = value_bits,
           .segments = {{"rest", "sign and mantissa", rest}, {"raw", "exponent", exponent_bits}}},
          {.label = "top16", .total = d.top16.total(), .segments = coded_segments(d.top16, false)},
          {.label = "rank", .total = d.rank.total(), .segments = coded_segments(d.rank, true)},
          {.label = "ideal (entropy of each tensor)",
           .total = rest + entropy,
           .segments = {{"rest", "sign and mantissa", rest}, {"ideal", "entropy of the exponent", entropy}}}};
}

void draw_axis(svg_canvas& svg, double from, double to, double step, double top, double bottom, int digits,
               std::string_view unit) {
  const int n = static_cast<int>(std::floor((to - from) / step + 1e-9));
  for (int i = 0; i <= n; ++i) {
    const double x = kMargin + kSpan * (step * i) / (to - from);
    svg.line({x, top}, {x, bottom}, "grid");
    const auto anchor = i == 0                  ? text_anchor::start
                        : x > kFigureWidth - 24 ? text_anchor::end
                                                : text_anchor::middle;
    const double at = i == 0 ? x - 3 : x > kFigureWidth - 24 ? x + 3 : x;
    svg.text({at, bottom + 14}, format_fixed(from + step * i, digits) + std::string(unit), "tick", anchor);
  }
}

/// Room for a number of `n_chars` inside a segment.
bool fits_inside(double width, std::size_t n_chars) noexcept {
  return width >= 6.2 * static_cast<double>(n_chars) + 4;
}

}  // namespace

std::string bits_figure(const dtype_summary& d, std::string_view id) {
  constexpr double kRow = 46;
  constexpr double kBar = 20;
  const std::vector<stack> rows = stacks_of(d);
  const double bottom = 8 + kRow * static_cast<double>(rows.size());
  const double value_bits = 8.0 * value_bytes(d.type);
  const double longest = std::max({value_bits, d.rank.total(), d.top16.total()});
  std::string description;
  for (const stack& row : rows) description += row.label + ": " + format_fixed(row.total, 3) + " bits. ";
  svg_canvas svg(id, kFigureWidth, bottom + 36, "Bits a value of " + std::string(to_string(d.type)),
                 description);
  draw_axis(svg, 0, longest, nice_step(longest, 8), 8, bottom, 0, "");
  svg.text({kFigureWidth / 2, bottom + 30}, "bits a value", "tick", text_anchor::middle);
  double y = 8;
  for (const stack& row : rows) {
    svg.text({kMargin, y + 13}, row.label, "label");
    svg.text({kFigureWidth - kMargin, y + 13},
             format_fixed(row.total, 2) + " bits, " + format_ratio(value_bits / row.total), "note",
             text_anchor::end);
    double x = kMargin;
    for (const segment& part : row.segments) {
      const double width = kSpan * part.bits / longest;
      if (width <= 0.01) continue;
      const std::string number =
          format_fixed(part.bits, std::abs(part.bits - std::round(part.bits)) < 1e-9 ? 0 : 2);
      svg.rect(x, y + 19, width, kBar, "seg " + std::string(part.css_class),
               std::string(part.name) + ": " + format_fixed(part.bits, 4) + " bits a value");
      if (fits_inside(width, number.size())) {
        svg.text({x + width / 2, y + 19 + kBar / 2 + 4}, number, "in on-" + std::string(part.css_class),
                 text_anchor::middle);
      }
      x += width;
    }
    y += kRow;
  }
  return svg.finish();
}

std::string types_figure(std::span<const type_summary> types, std::string_view id) {
  constexpr double kRow = 36;
  constexpr double kBar = 10;
  constexpr std::size_t kLabelColumns = 40;
  const auto shown = types.first(std::min(types.size(), kMostTypes));
  double largest = 1.1;
  for (const type_summary& type : shown) {
    largest = std::max({largest, type.sums.ideal_ratio(), type.sums.rank_ratio()});
  }
  const double step = nice_step(largest - 1, 5);
  largest = 1 + step * std::ceil((largest - 1) / step - 1e-9);
  const double bottom = 4 + kRow * static_cast<double>(shown.size());
  svg_canvas svg(id, kFigureWidth, bottom + 20, "Compression ratio by tensor type",
                 "Bars from 1: the ratio predicted for rank. Marks: the ratio at the entropy. The table has "
                 "the numbers.");
  draw_axis(svg, 1, largest, step, 4, bottom, step < 0.1 ? 2 : 1, "\xC3\x97");
  double y = 4;
  for (const type_summary& type : shown) {
    const group_sums& s = type.sums;
    const auto x_of = [&](double ratio) { return kMargin + kSpan * (ratio - 1) / (largest - 1); };
    const std::string numbers =
        "\xC3\x97" + format_count(s.n_tensors) + " \xC2\xB7 " + format_bytes(s.n_bytes) + " \xC2\xB7 ";
    const std::string ratio = format_ratio(s.rank_ratio());
    svg.text({kMargin, y + 13}, shorten(type.name, kLabelColumns), "name");
    svg.text({kFigureWidth - kMargin, y + 13}, numbers + ratio, "tick", text_anchor::end);
    const std::string tooltip = type.name + ": rank " + ratio + ", ideal " + format_ratio(s.ideal_ratio());
    svg.rect(kMargin, y + 18, kSpan, kBar, "track", tooltip);
    svg.rect(kMargin, y + 18, std::max(0.0, x_of(s.rank_ratio()) - kMargin), kBar, "l2", tooltip);
    const double mark = x_of(s.ideal_ratio());
    svg.line({mark, y + 16}, {mark, y + 20 + kBar}, "mark");
    y += kRow;
  }
  return svg.finish();
}

}  // namespace tersor::model_detail
