#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/report_text.hpp"
#include "model/svg_canvas.hpp"
#include "model/svg_figures.hpp"

namespace tersor::model_detail {
namespace {

constexpr double kHeight = 236;
constexpr double kLeft = 78;
constexpr double kRight = 8;
constexpr double kTop = 22;
constexpr double kBottom = 44;
constexpr double kPlotWidth = kFigureWidth - kLeft - kRight;
constexpr double kPlotHeight = kHeight - kTop - kBottom;
/// Runs of at least so many exponents that never occur are cut out.
constexpr unsigned kLongGap = 6;
constexpr double kGapColumns = 2;
constexpr double kMinLabelDistance = 27;

struct bar {
  unsigned symbol = 0;
  double column = 0;
  double share = 0;
};

struct bar_row {
  std::vector<bar> bars;
  std::vector<double> gaps;  ///< columns in the middle of what was cut out
  double n_columns = 0;
};

bar_row lay_out(const histogram& counts) {
  bar_row row;
  const auto total = static_cast<double>(counts.total());
  unsigned last = 0;
  for (unsigned symbol = 0; symbol < counts.counts.size(); ++symbol) {
    const std::uint64_t count = counts.counts[symbol];
    if (count == 0) continue;
    if (!row.bars.empty()) {
      const bool cut = symbol - last > kLongGap;
      if (cut) row.gaps.push_back(row.n_columns + kGapColumns / 2);
      row.n_columns += cut ? kGapColumns : symbol - last - 1;
    }
    row.bars.push_back(
        {.symbol = symbol, .column = row.n_columns, .share = static_cast<double>(count) / total});
    row.n_columns += 1;
    last = symbol;
  }
  return row;
}

/// The exponent as a power of two, or what the reserved fields mean.
std::string exponent_name(dtype type, unsigned symbol) {
  if (symbol == 0) return "zero";
  const bool reserved = type != dtype::f8_e4m3 && symbol + 1 == 1U << symbol_bits(type);
  if (reserved) return "\xE2\x88\x9E";
  const int power = static_cast<int>(symbol) - exponent_bias(type);
  return power < 0 ? "\xE2\x88\x92" + std::to_string(-power) : std::to_string(power);
}

/// Maps a share to a height between 0 and 1, and draws the axis that says how.
class share_axis {
 public:
  share_axis(const bar_row& row, bool logarithmic) : logarithmic_(logarithmic) {
    double smallest = 1;
    for (const bar& b : row.bars) {
      highest_ = std::max(highest_, b.share);
      smallest = std::min(smallest, b.share);
    }
    if (logarithmic_) {
      // Somewhat lower than the rarest exponent, so that it has a bar.
      lowest_power_ = static_cast<int>(std::floor(std::log10(smallest) - 0.1));
    } else {
      step_ = nice_step(highest_, 4);
      highest_ = step_ * std::ceil(highest_ / step_);
    }
  }

  [[nodiscard]] double height(double share) const {
    if (!logarithmic_) return share / highest_;
    return 1 - std::log10(share) / lowest_power_;
  }

  void draw(svg_canvas& svg) const {
    if (!logarithmic_) {
      const int n = static_cast<int>(std::lround(highest_ / step_));
      const double percent = 100 * step_;
      const int digits = percent >= 1 && percent == std::round(percent) ? 0 : percent >= 0.5 ? 1 : 2;
      for (int i = 0; i <= n; ++i) tick(svg, static_cast<double>(i) / n, step_ * i, digits);
      return;
    }
    const int every = lowest_power_ < -5 ? 2 : 1;
    for (int power = 0; power >= lowest_power_; power -= every) {
      tick(svg, 1 - static_cast<double>(power) / lowest_power_, std::pow(10.0, power),
           std::max(0, -power - 2));
    }
  }

 private:
  static void tick(svg_canvas& svg, double at, double share, int digits) {
    const double y = kTop + kPlotHeight * (1 - at);
    svg.line({kLeft, y}, {kFigureWidth - kRight, y}, "grid");
    svg.text({kLeft - 6, y + 3.5}, format_fixed(100 * share, digits) + "%", "tick", text_anchor::end);
  }

  bool logarithmic_;
  double highest_ = 0;
  double step_ = 1;
  int lowest_power_ = -1;
};

void draw_labels(svg_canvas& svg, const bar_row& row, dtype type, double column_width) {
  int every = 1;
  while (every * column_width < kMinLabelDistance) every *= 2;
  double last_x = -kMinLabelDistance;
  for (std::size_t i = 0; i < row.bars.size(); ++i) {
    const bar& b = row.bars[i];
    const int power = static_cast<int>(b.symbol) - exponent_bias(type);
    const bool alone = (i == 0 || b.column - row.bars[i - 1].column > 2) &&
                       (i + 1 == row.bars.size() || row.bars[i + 1].column - b.column > 2);
    if (power % every != 0 && !alone && b.symbol != 0) continue;
    const double x = kLeft + (b.column + 0.5) * column_width;
    if (x - last_x < kMinLabelDistance * 0.8) continue;
    svg.text({x, kTop + kPlotHeight + 15}, exponent_name(type, b.symbol), "tick", text_anchor::middle);
    last_x = x;
  }
}

std::string describe_top(const dtype_summary& d) {
  const tensor_analysis& t = d.shared;
  return "The most frequent 3, 6, 9 and 16 exponents hold " + format_percent(t.coverage[3]) + ", " +
         format_percent(t.coverage[6]) + ", " + format_percent(t.coverage[9]) + " and " +
         format_percent(t.coverage[16]) + " of the values. Entropy " + format_fixed(t.entropy, 3) + " bits.";
}

}  // namespace

int level_of(const codebook& book, unsigned symbol) noexcept {
  const auto found = std::ranges::find(book.symbols, static_cast<std::uint8_t>(symbol));
  const auto entry = found - book.symbols.begin();
  constexpr std::ptrdiff_t kPerLevel = 3;
  constexpr std::ptrdiff_t kLastLevel = 4;
  if (found == book.symbols.end()) return static_cast<int>(kLastLevel + 1);
  return static_cast<int>(std::min(entry / kPerLevel + 1, kLastLevel));
}

std::string histogram_figure(const dtype_summary& d, bool logarithmic, std::string_view id) {
  const bar_row row = lay_out(d.shared.counts);
  const codebook book = book_of(d.type, d.shared.counts);
  const std::string scale = logarithmic ? ", logarithmic scale" : "";
  svg_canvas svg(id, kFigureWidth, kHeight,
                 "Exponents of " + std::string(to_string(d.type)) + " values" + scale, describe_top(d));
  const share_axis axis(row, logarithmic);
  axis.draw(svg);
  const double column_width = std::min(kPlotWidth / std::max(row.n_columns, 1.0), 40.0);
  const double base = kTop + kPlotHeight;
  for (const bar& b : row.bars) {
    const double height = kPlotHeight * axis.height(b.share);
    const double gap = column_width > 4 ? column_width * 0.14 : 0;
    const int level = level_of(book, b.symbol);
    const std::string where = level > 4 ? ", escape" : ", level " + std::to_string(level);
    const std::string power = exponent_name(d.type, b.symbol);
    std::string label = "exponent " + power + " (field ";
    label += std::to_string(b.symbol) + "): " + format_percent(b.share) + ", ";
    label += format_count(d.shared.counts.counts[b.symbol]) + " values" + where;
    svg.rect(kLeft + b.column * column_width + gap / 2, base - height, column_width - gap, height,
             "l" + std::to_string(level), label);
  }
  for (const double gap : row.gaps) {
    svg.text({kLeft + gap * column_width, base - 3}, "\xE2\x8B\xAF", "tick", text_anchor::middle);
  }
  svg.line({kLeft, base}, {kFigureWidth - kRight, base}, "axis");
  draw_labels(svg, row, d.type, column_width);
  svg.text({kLeft + kPlotWidth / 2, kHeight - 8}, "exponent: power of two", "tick", text_anchor::middle);
  svg.text({kLeft, 12}, logarithmic ? "share of values (logarithmic)" : "share of values", "tick");
  if (!logarithmic) {
    svg.text({kFigureWidth - kRight, 12},
             "entropy " + format_fixed(d.shared.entropy, 2) + " of " + std::to_string(symbol_bits(d.type)) +
                 " bits",
             "note", text_anchor::end);
  }
  return svg.finish();
}

}  // namespace tersor::model_detail
