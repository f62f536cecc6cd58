#include "pareto_svg.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "model/report_text.hpp"
#include "model/svg_canvas.hpp"

namespace tersor::bench {
namespace {

using model_detail::format_bytes;
using model_detail::format_fixed;
using model_detail::nice_step;
using model_detail::svg_canvas;
using model_detail::svg_point;
using model_detail::text_anchor;

constexpr double kWidth = 860, kHeight = 400;
constexpr double kPanelWidth = 330, kPanelHeight = 260, kTop = 88, kFirstLeft = 70, kSecondLeft = 500;

constexpr std::string_view kStyle = R"css(<style>
svg { color-scheme: light dark; --back: #ffffff; --text: #1b2129; --muted: #57616d; --grid: #e7ebef; --ours: #1f66c1; --peer: #c8501b; }
@media (prefers-color-scheme: dark) {
  svg { --back: #171c23; --text: #e6ebf0; --muted: #9aa6b2; --grid: #262e38; --ours: #6aaeff; --peer: #f0894f; }
}
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--text); }
.head { font-size: 15px; font-weight: 650; } .panel { font-weight: 600; } .tick { fill: var(--muted); font-size: 11px; }
.back { fill: var(--back); } .grid { stroke: var(--grid); } .axis { stroke: var(--muted); }
.front { fill: none; stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 4 3; }
.label { paint-order: stroke; stroke: var(--back); stroke-width: 4px; }
.ours { fill: var(--ours); } .peer { fill: var(--peer); }
</style>
)css";

struct mark {
  std::string name;
  double ratio, speed;
  bool peer;
};

/// Largest and step of an axis that begins at zero or at `from`.
struct axis {
  double from, to, step;
  axis(double low, double high, int n_steps) : from(low), to(high), step(nice_step(high - low, n_steps)) {
    from = std::floor(low / step) * step;
    to = std::ceil(high / step + 0.25) * step;
  }
  [[nodiscard]] double share(double value) const noexcept { return (value - from) / (to - from); }
};

std::vector<svg_point> front_of(std::vector<mark> marks, const std::vector<svg_point>& places) {
  std::vector<svg_point> front;
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const bool beaten = std::any_of(marks.begin(), marks.end(), [&](const mark& other) {
      return other.ratio >= marks[i].ratio && other.speed >= marks[i].speed &&
             (other.ratio > marks[i].ratio || other.speed > marks[i].speed);
    });
    if (!beaten) front.push_back(places[i]);
  }
  std::sort(front.begin(), front.end(), [](const svg_point& a, const svg_point& b) { return a.x < b.x; });
  return front;
}

double highest(const std::vector<mark>& marks, double mark::*field) {
  double most = 0;
  for (const mark& m : marks) most = std::max(most, m.*field);
  return most;
}

void draw_axes(svg_canvas& canvas, double left, const axis& x, const axis& y) {
  constexpr double kBottom = kTop + kPanelHeight;
  const auto n_of = [](const axis& a) { return static_cast<int>(std::lround((a.to - a.from) / a.step)); };
  for (int i = 0; i <= n_of(y); ++i) {
    const double value = y.from + i * y.step;
    const double at = kBottom - kPanelHeight * y.share(value);
    canvas.line({left, at}, {left + kPanelWidth, at}, i == 0 ? "axis" : "grid");
    canvas.text({left - 8, at + 4}, format_fixed(value, y.step < 1 ? 1 : 0), "tick", text_anchor::end);
  }
  for (int i = 0; i <= n_of(x); ++i) {
    const double value = x.from + i * x.step;
    const double at = left + kPanelWidth * x.share(value);
    canvas.line({at, kTop}, {at, kBottom}, i == 0 ? "axis" : "grid");
    canvas.text({at, kBottom + 18}, format_fixed(value, x.step < 0.1 ? 2 : 1), "tick", text_anchor::middle);
  }
  canvas.text({left + kPanelWidth / 2, kBottom + 38}, "ratio (original / encoded bytes)", "tick",
              text_anchor::middle);
}

void draw_panel(svg_canvas& canvas, double left, std::string_view title, const std::vector<mark>& marks) {
  const axis x(1.0, highest(marks, &mark::ratio), 5);
  const axis y(0.0, highest(marks, &mark::speed), 5);
  canvas.text({left, kTop - 14}, title, "panel");
  draw_axes(canvas, left, x, y);
  std::vector<svg_point> places;
  for (const mark& m : marks) {
    places.push_back(
        {left + kPanelWidth * x.share(m.ratio), kTop + kPanelHeight - kPanelHeight * y.share(m.speed)});
  }
  canvas.polyline(front_of(marks, places), "front");
  double last_label = -100;
  std::vector<std::size_t> order(marks.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return places[a].y < places[b].y; });
  for (const std::size_t i : order) {
    const mark& m = marks[i];
    const bool at_right = places[i].x > left + 0.55 * kPanelWidth;
    const double label = std::max(places[i].y - 8, last_label + 13);
    canvas.text({places[i].x + (at_right ? -8 : 8), label},
                m.name + " " + format_fixed(m.speed, m.speed < 10 ? 1 : 0), "label",
                at_right ? text_anchor::end : text_anchor::start);
    last_label = label;
  }
  // Points last: no label hides one.
  for (const std::size_t i : order) {
    const mark& m = marks[i];
    canvas.circle(places[i], 5, m.peer ? "peer" : "ours",
                  m.name + ": " + format_fixed(m.ratio, 3) + ", " + format_fixed(m.speed, 1) + " GB/s");
  }
}

}  // namespace

std::string pareto_svg(std::span<const gpu_row> rows, const std::string& subtitle) {
  std::string data = rows.empty() ? "" : rows.front().data;
  for (const gpu_row& row : rows) {
    if (row.peer) data = row.data;
  }
  std::vector<mark> decode, encode;
  std::uint64_t n_bytes = 0;
  for (const gpu_row& row : rows) {
    if (row.data != data || row.type != "bf16") continue;
    decode.push_back({row.codec, row.ratio, row.decode_gb_s, row.peer});
    encode.push_back({row.codec, row.ratio, row.encode_gb_s, row.peer});
    n_bytes = std::max(n_bytes, row.n_bytes);
  }
  svg_canvas canvas(
      "pareto", kWidth, kHeight, "Ratio and speed",
      "Compression ratio against decode and encode speed of each codec, original bytes a second.");
  canvas.rect(0, 0, kWidth, kHeight, "back");
  canvas.text({24, 30}, "Ratio and speed, BF16, data: " + data + ", " + format_bytes(n_bytes), "head");
  canvas.text({24, 50}, subtitle, "tick");
  if (!decode.empty()) {
    draw_panel(canvas, kFirstLeft, "decode, GB/s", decode);
    draw_panel(canvas, kSecondLeft, "encode, GB/s", encode);
  }
  std::string svg = canvas.finish();
  return svg.insert(svg.find("<rect"), kStyle);
}

}  // namespace tersor::bench
