#include <algorithm>
#include <cmath>
#include <optional>

#include "gemm_bench.hpp"
#include "model/report_text.hpp"
#include "model/svg_canvas.hpp"

namespace tersor::bench {
namespace {

using model_detail::format_fixed;
using model_detail::svg_canvas;
using model_detail::svg_point;
using model_detail::text_anchor;

constexpr double kPanelWidth = 330, kPanelHeight = 260, kTop = 88, kFirstLeft = 56, kPanelStep = 400;
constexpr double kLegendTop = kTop + kPanelHeight + 66, kLegendLine = 18, kLegendColumn = 200;
constexpr std::size_t kColours = 8, kLegendColumns = 2;

constexpr std::string_view kStyle = R"css(<style>
svg { color-scheme: light dark; --back: #ffffff; --text: #1b2129; --muted: #57616d; --grid: #e7ebef; }
svg { --c0: #1f66c1; --c1: #c8501b; --c2: #2b8a5b; --c3: #8a3fb0; --c4: #b08a00; --c5: #0f8a9c; --c6: #b5315f; --c7: #6a6f2b; }
@media (prefers-color-scheme: dark) {
  svg { --back: #171c23; --text: #e6ebf0; --muted: #9aa6b2; --grid: #262e38; }
  svg { --c0: #6aaeff; --c1: #f0894f; --c2: #5cc793; --c3: #c58be6; --c4: #dcb93a; --c5: #4fc3d4; --c6: #f0789f; --c7: #b4ba5e; }
}
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--text); }
.head { font-size: 15px; font-weight: 650; } .panel { font-weight: 600; } .tick { fill: var(--muted); font-size: 11px; }
.back { fill: var(--back); } .grid { stroke: var(--grid); } .axis { stroke: var(--muted); }
.one { stroke: var(--text); stroke-dasharray: 4 3; }
polyline { fill: none; stroke-width: 1.8; }
polyline.s0 { stroke: var(--c0); } polyline.s1 { stroke: var(--c1); } polyline.s2 { stroke: var(--c2); } polyline.s3 { stroke: var(--c3); }
polyline.s4 { stroke: var(--c4); } polyline.s5 { stroke: var(--c5); } polyline.s6 { stroke: var(--c6); } polyline.s7 { stroke: var(--c7); }
circle.s0 { fill: var(--c0); } circle.s1 { fill: var(--c1); } circle.s2 { fill: var(--c2); } circle.s3 { fill: var(--c3); }
circle.s4 { fill: var(--c4); } circle.s5 { fill: var(--c5); } circle.s6 { fill: var(--c6); } circle.s7 { fill: var(--c7); }
</style>
)css";

struct series {
  gemm_size size;
  matrix_layout layout;
  [[nodiscard]] bool holds(const gemm_row& row) const noexcept {
    return row.size == size && row.layout == layout;
  }
  [[nodiscard]] std::string name() const {
    std::string text = std::to_string(size.rows) + " \xC3\x97 " + std::to_string(size.cols);
    return layout == matrix_layout::packed ? text : text + ", " + std::string(to_string(layout));
  }
};

/// What both panels share.
struct figure {
  std::vector<series> lines;
  std::vector<std::uint64_t> n;  ///< ascending; evenly spaced
  double low = 0.8, high = 1.2;

  explicit figure(std::span<const gemm_row> rows) {
    for (const gemm_row& row : rows) {
      const auto speedup = row.speedup();
      if (!speedup) continue;
      if (std::none_of(lines.begin(), lines.end(), [&](const series& s) { return s.holds(row); })) {
        lines.push_back({row.size, row.layout});
      }
      if (std::find(n.begin(), n.end(), row.n) == n.end()) n.push_back(row.n);
      low = std::min(low, std::floor(*speedup * 5) / 5);
      high = std::max(high, std::ceil(*speedup * 5) / 5);
    }
    std::sort(n.begin(), n.end());
  }
  [[nodiscard]] double x(double left, std::uint64_t tokens) const {
    const auto at = std::distance(n.begin(), std::find(n.begin(), n.end(), tokens));
    const double steps = std::max<double>(1, static_cast<double>(n.size()) - 1);
    return left + 12 + (kPanelWidth - 24) * static_cast<double>(at) / steps;
  }
  [[nodiscard]] double y(double speedup) const {
    return kTop + kPanelHeight * (high - speedup) / (high - low);
  }
};

void draw_axes(svg_canvas& canvas, double left, const figure& f) {
  const double step = f.high - f.low > 1.6 ? 0.5 : 0.1;
  const int first = static_cast<int>(std::ceil(f.low / step - 1e-9));
  const int last = static_cast<int>(std::floor(f.high / step + 1e-9));
  for (int i = first; i <= last; ++i) {
    const double at = f.y(i * step);
    canvas.line({left, at}, {left + kPanelWidth, at}, "grid");
    canvas.text({left - 8, at + 4}, format_fixed(i * step, 1), "tick", text_anchor::end);
  }
  canvas.line({left, f.y(1)}, {left + kPanelWidth, f.y(1)}, "one");
  canvas.line({left, kTop + kPanelHeight}, {left + kPanelWidth, kTop + kPanelHeight}, "axis");
  for (const std::uint64_t tokens : f.n) {
    canvas.text({f.x(left, tokens), kTop + kPanelHeight + 18}, std::to_string(tokens), "tick",
                text_anchor::middle);
  }
  canvas.text({left + kPanelWidth / 2, kTop + kPanelHeight + 38}, "N, tokens", "tick", text_anchor::middle);
}

void draw_panel(svg_canvas& canvas, double left, std::string_view title, const figure& f,
                std::span<const gemm_row> rows, bool pdl) {
  canvas.text({left, kTop - 14}, title, "panel");
  draw_axes(canvas, left, f);
  for (std::size_t i = 0; i < f.lines.size(); ++i) {
    const std::string colour = "s" + std::to_string(i % kColours);
    std::vector<svg_point> line;
    std::vector<std::string> tips;
    for (const std::uint64_t tokens : f.n) {
      for (const gemm_row& row : rows) {
        if (!f.lines[i].holds(row) || row.n != tokens || row.pdl != pdl || !row.speedup()) continue;
        line.push_back({f.x(left, tokens), f.y(*row.speedup())});
        tips.push_back(f.lines[i].name() + ", N = " + std::to_string(tokens) + ": " +
                       format_fixed(*row.speedup(), 2));
      }
    }
    canvas.polyline(line, colour);
    for (std::size_t k = 0; k < line.size(); ++k) canvas.circle(line[k], 3.2, colour, tips[k]);
  }
}

}  // namespace

std::string gemm_svg(std::span<const gemm_row> rows, const std::string& subtitle) {
  const figure f(rows);
  const bool pdl = std::any_of(rows.begin(), rows.end(), [](const gemm_row& row) { return row.pdl; });
  const double width = kFirstLeft + kPanelWidth + 44 + (pdl ? kPanelStep : 0);
  const double height =
      kLegendTop + kLegendLine * static_cast<double>((f.lines.size() + 1) / kLegendColumns) + 12;
  svg_canvas canvas(
      "gemm", width, height, "Products from packed weights",
      "Speed-up over cuBLASLt on plain weights against the number of tokens, one line a shape.");
  canvas.rect(0, 0, width, height, "back");
  canvas.text({24, 30}, "Speed-up over cuBLASLt on plain weights", "head");
  canvas.text({24, 50}, subtitle, "tick");
  draw_panel(canvas, kFirstLeft, "launches one after the other", f, rows, false);
  if (pdl) draw_panel(canvas, kFirstLeft + kPanelStep, "programmatic dependent launch", f, rows, true);
  for (std::size_t i = 0; i < f.lines.size(); ++i) {
    const double x = kFirstLeft + kLegendColumn * static_cast<double>(i % kLegendColumns);
    const double y = kLegendTop + kLegendLine * static_cast<double>(i / kLegendColumns);
    canvas.circle({x, y - 4}, 4, "s" + std::to_string(i % kColours));
    canvas.text({x + 10, y}, f.lines[i].name(), "tick");
  }
  std::string svg = canvas.finish();
  return svg.insert(svg.find("<rect"), kStyle);
}

}  // namespace tersor::bench
