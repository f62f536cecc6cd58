// Writes one inline SVG. Colours come from the page's style sheet by class name, so that a figure follows the
// theme.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tersor::model_detail {

struct svg_point {
  double x = 0;
  double y = 0;
};

enum class text_anchor { start, middle, end };

class svg_canvas {
 public:
  /// `id` is unique in the page; `title` and `description` are read to those who do not see the figure.
  svg_canvas(std::string_view id, double width, double height, std::string_view title,
             std::string_view description);

  /// `tooltip` appears on hover; empty for none.
  void rect(double x, double y, double width, double height, std::string_view css_class,
            std::string_view tooltip = {});
  void circle(svg_point centre, double radius, std::string_view css_class, std::string_view tooltip = {});
  void line(svg_point from, svg_point to, std::string_view css_class);
  void polyline(std::span<const svg_point> points, std::string_view css_class);
  void polygon(std::span<const svg_point> points, std::string_view css_class);
  void text(svg_point at, std::string_view content, std::string_view css_class,
            text_anchor anchor = text_anchor::start);

  [[nodiscard]] std::string finish();

 private:
  void shape(std::string_view tag, std::string_view attributes, std::string_view css_class,
             std::string_view tooltip);

  std::string out_;
};

/// A step of 1, 2, 2.5 or 5 times a power of ten that cuts `range` into about `n_steps`.
[[nodiscard]] double nice_step(double range, int n_steps) noexcept;

}  // namespace tersor::model_detail
