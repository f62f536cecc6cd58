#include <algorithm>
#include <cmath>

#include "model/report_text.hpp"
#include "model/svg_canvas.hpp"
#include "model/svg_figures.hpp"

namespace tersor::model_detail {
namespace {

constexpr double kHeight = 236;
constexpr double kLeft = 50;
constexpr double kRight = 14;
constexpr double kTop = 22;
constexpr double kBottom = 44;

/// Maps data to the plot area.
struct plot_area {
  double x_from = 0;
  double x_to = 1;
  double y_from = 0;
  double y_to = 1;

  [[nodiscard]] svg_point at(double x, double y) const noexcept {
    const double width = kFigureWidth - kLeft - kRight;
    const double height = kHeight - kTop - kBottom;
    return {.x = kLeft + width * (x - x_from) / (x_to - x_from),
            .y = kTop + height * (y_to - y) / (y_to - y_from)};
  }
};

void draw_y_axis(svg_canvas& svg, const plot_area& area, double step, int digits, double factor,
                 std::string_view unit) {
  const int n = static_cast<int>(std::lround((area.y_to - area.y_from) / step));
  for (int i = 0; i <= n; ++i) {
    const double value = area.y_from + step * i;
    const svg_point from = area.at(area.x_from, value);
    svg.line(from, {.x = kFigureWidth - kRight, .y = from.y}, "grid");
    svg.text({from.x - 6, from.y + 3.5}, format_fixed(factor * value, digits) + std::string(unit), "tick",
             text_anchor::end);
  }
}

void draw_x_axis(svg_canvas& svg, const plot_area& area, double first, double step, std::string_view title) {
  const double base = kHeight - kBottom;
  svg.line({kLeft, base}, {kFigureWidth - kRight, base}, "axis");
  for (double x = first; x <= area.x_to; x += step) {
    svg.text({area.at(x, area.y_from).x, base + 15}, format_fixed(x, 0), "tick", text_anchor::middle);
  }
  svg.text({kLeft + (kFigureWidth - kLeft - kRight) / 2, kHeight - 8}, title, "tick", text_anchor::middle);
}

void draw_band(svg_canvas& svg, const plot_area& area, const dtype_summary& d) {
  std::vector<svg_point> band;
  const std::size_t n = d.shared.coverage.size();
  for (std::size_t k = 0; k < n; ++k) band.push_back(area.at(static_cast<double>(k), d.highest_coverage[k]));
  for (std::size_t k = n; k-- > 0;) band.push_back(area.at(static_cast<double>(k), d.lowest_coverage[k]));
  svg.polygon(band, "band");
}

double measured(const group_sums& sums, kv_measure measure) {
  return measure == kv_measure::entropy ? sums.entropy() : sums.rank_ratio();
}

/// A range of y that holds all points with some air, cut at steps.
plot_area fit(std::span<const kv_layer> layers, kv_measure measure, double& step) {
  double low = 1e300;
  double high = 0;
  for (const kv_layer& layer : layers) {
    for (const group_sums* sums : {&layer.keys, &layer.values}) {
      if (sums->n_values == 0) continue;
      low = std::min(low, measured(*sums, measure));
      high = std::max(high, measured(*sums, measure));
    }
  }
  const double least = measure == kv_measure::entropy ? 0.2 : 0.05;
  step = std::max(nice_step(high - low, 4), least / 2);
  plot_area area{.x_from = static_cast<double>(layers.front().layer),
                 .x_to = static_cast<double>(layers.back().layer),
                 .y_from = std::max(0.0, step * (std::floor(low / step) - (low == high ? 1 : 0))),
                 .y_to = step * (std::ceil(high / step) + (low == high ? 1 : 0))};
  if (area.y_to - area.y_from < step / 2) area.y_to += step;
  const double air = std::max(0.5, 0.03 * (area.x_to - area.x_from));
  area.x_from -= air;
  area.x_to += air;
  return area;
}

}  // namespace

std::string coverage_figure(const dtype_summary& d, std::string_view id) {
  const auto& coverage = d.shared.coverage;
  const plot_area area{.x_from = 0, .x_to = 16.4, .y_from = 0, .y_to = 1};
  svg_canvas svg(id, kFigureWidth, kHeight, "Coverage of the k most frequent exponents",
                 "3: " + format_percent(coverage[3]) + ", 6: " + format_percent(coverage[6]) +
                     ", 9: " + format_percent(coverage[9]) + ", 16: " + format_percent(coverage[16]) + ".");
  draw_y_axis(svg, area, 0.25, 0, 100, "%");
  draw_x_axis(svg, area, 0, 2, "k: number of exponents in the codebook");
  svg.text({kLeft, 12}, "share of values covered", "tick");
  draw_band(svg, area, d);
  std::vector<svg_point> line;
  for (std::size_t k = 0; k < coverage.size(); ++k)
    line.push_back(area.at(static_cast<double>(k), coverage[k]));
  svg.polyline(line, "curve keys");
  for (std::size_t k = 0; k < coverage.size(); ++k) {
    svg.circle(line[k], 2.6, "dot keys", std::to_string(k) + ": " + format_percent(coverage[k]));
  }
  // Under the curve there is room: it only rises.
  for (const std::size_t k : {std::size_t{3}, std::size_t{6}, std::size_t{9}, std::size_t{16}}) {
    const svg_point at = line[k];
    const double drop = k == 6 ? 42 : k == 9 ? 24 : 20;
    const auto anchor = k == 3 ? text_anchor::start : k == 16 ? text_anchor::end : text_anchor::middle;
    svg.line({at.x, at.y + 4}, {at.x, at.y + drop}, "leader");
    svg.text({k == 3 ? at.x - 5 : at.x, at.y + drop + 12}, format_percent(coverage[k]), "note", anchor);
  }
  return svg.finish();
}

std::string kv_figure(std::span<const kv_layer> layers, kv_measure measure, std::string_view id) {
  const bool entropy = measure == kv_measure::entropy;
  double step = 1;
  const plot_area area = fit(layers, measure, step);
  std::string description = "Keys against values by layer:";
  for (const kv_layer& layer : layers) {
    description += " layer " + std::to_string(layer.layer) + ": " +
                   format_fixed(measured(layer.keys, measure), 3) + " and " +
                   format_fixed(measured(layer.values, measure), 3) + ";";
  }
  svg_canvas svg(id, kFigureWidth, kHeight,
                 entropy ? "Entropy of keys and values by layer" : "Ratio of keys and values by layer",
                 description);
  int digits = 0;
  for (double scaled = step; digits < 4 && std::abs(scaled - std::round(scaled)) > 1e-9; scaled *= 10)
    ++digits;
  draw_y_axis(svg, area, step, digits, 1, entropy ? "" : "\xC3\x97");
  const double n_layers = static_cast<double>(layers.back().layer - layers.front().layer) + 1;
  draw_x_axis(svg, area, static_cast<double>(layers.front().layer),
              std::max(1.0, std::ceil(nice_step(n_layers, 8))), "layer");
  svg.text({kLeft, 12}, entropy ? "entropy, bits a value" : "ratio predicted for rank", "tick");
  for (const bool is_key : {true, false}) {
    std::vector<svg_point> line;
    const std::string series = is_key ? "keys" : "values";
    std::vector<std::string> tooltips;
    for (const kv_layer& layer : layers) {
      const group_sums& sums = is_key ? layer.keys : layer.values;
      if (sums.n_values == 0) continue;
      line.push_back(area.at(static_cast<double>(layer.layer), measured(sums, measure)));
      tooltips.push_back(series + ", layer " + std::to_string(layer.layer) + ": " +
                         format_fixed(measured(sums, measure), 3));
    }
    svg.polyline(line, "curve " + series);
    for (std::size_t i = 0; i < line.size(); ++i) svg.circle(line[i], 3.2, "dot " + series, tooltips[i]);
  }
  return svg.finish();
}

}  // namespace tersor::model_detail
