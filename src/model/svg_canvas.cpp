#include "model/svg_canvas.hpp"

#include <cmath>

#include "model/report_text.hpp"

namespace tersor::model_detail {
namespace {

/// Two digits are finer than any screen; trailing zeros are cut to keep the page small.
std::string number(double value) {
  std::string text = format_fixed(value, 2);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string attribute(std::string_view name, double value) {
  return " " + std::string(name) + "=\"" + number(value) + "\"";
}

std::string point_list(std::span<const svg_point> points) {
  std::string list = " points=\"";
  for (const svg_point& p : points) {
    if (list.back() != '"') list += ' ';
    list += number(p.x) + "," + number(p.y);
  }
  return list + "\"";
}

}  // namespace

svg_canvas::svg_canvas(std::string_view id, double width, double height, std::string_view title,
                       std::string_view description) {
  const std::string name = escape_html(id);
  out_ = "<svg role=\"img\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(width) + " " +
         number(height) + "\" aria-labelledby=\"" + name + "-t " + name + "-d\">\n<title id=\"" + name +
         "-t\">" + escape_html(title) + "</title>\n<desc id=\"" + name + "-d\">" + escape_html(description) +
         "</desc>\n";
}

void svg_canvas::shape(std::string_view tag, std::string_view attributes, std::string_view css_class,
                       std::string_view tooltip) {
  out_ += "<" + std::string(tag) + " class=\"" + std::string(css_class) + "\"" + std::string(attributes);
  if (tooltip.empty()) {
    out_ += "/>\n";
  } else {
    out_ += "><title>" + escape_html(tooltip) + "</title></" + std::string(tag) + ">\n";
  }
}

void svg_canvas::rect(double x, double y, double width, double height, std::string_view css_class,
                      std::string_view tooltip) {
  shape("rect",
        attribute("x", x) + attribute("y", y) + attribute("width", width) + attribute("height", height),
        css_class, tooltip);
}

void svg_canvas::circle(svg_point centre, double radius, std::string_view css_class,
                        std::string_view tooltip) {
  shape("circle", attribute("cx", centre.x) + attribute("cy", centre.y) + attribute("r", radius), css_class,
        tooltip);
}

void svg_canvas::line(svg_point from, svg_point to, std::string_view css_class) {
  shape("line",
        attribute("x1", from.x) + attribute("y1", from.y) + attribute("x2", to.x) + attribute("y2", to.y),
        css_class, {});
}

void svg_canvas::polyline(std::span<const svg_point> points, std::string_view css_class) {
  shape("polyline", point_list(points), css_class, {});
}

void svg_canvas::polygon(std::span<const svg_point> points, std::string_view css_class) {
  shape("polygon", point_list(points), css_class, {});
}

void svg_canvas::text(svg_point at, std::string_view content, std::string_view css_class,
                      text_anchor anchor) {
  const std::string_view where = anchor == text_anchor::middle ? " text-anchor=\"middle\""
                                 : anchor == text_anchor::end  ? " text-anchor=\"end\""
                                                               : "";
  out_ += "<text class=\"" + std::string(css_class) + "\"" + attribute("x", at.x) + attribute("y", at.y) +
          std::string(where) + ">" + escape_html(content) + "</text>\n";
}

std::string svg_canvas::finish() {
  return std::move(out_) + "</svg>\n";
}

double nice_step(double range, int n_steps) noexcept {
  const double rough = range / n_steps;
  if (!(rough > 0)) return 1;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

}  // namespace tersor::model_detail
