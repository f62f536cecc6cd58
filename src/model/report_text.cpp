#include "model/report_text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <vector>

namespace tersor::model_detail {
namespace {

constexpr char32_t kReplacement = 0xfffd;

struct code_point {
  char32_t value = kReplacement;
  std::size_t n_bytes = 1;
};

/// Reads the first code point of a non-empty text; one replaced byte if it is no UTF-8.
code_point next_code_point(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {.value = lead};
  const std::size_t length = lead >= 0xf0 && lead < 0xf5   ? 4
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xc2 && lead < 0xe0 ? 2
                                                           : 0;
  if (length == 0 || text.size() < length) return {};
  char32_t value = lead & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return {};
    value = value << 6 | (byte(i) & 0x3fU);
  }
  constexpr std::array<char32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xd800 && value < 0xe000;
  if (value < kSmallest[length] || value > 0x10ffff || surrogate) return {};
  return {.value = value, .n_bytes = length};
}

bool is_shown_escaped(char32_t c) noexcept {
  const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool separator = c == 0x2028 || c == 0x2029 || c == 0xfeff;
  const bool direction = c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
                         (c >= 0x2066 && c <= 0x2069);
  const bool not_a_character = (c & 0xfffeU) == 0xfffeU || (c >= 0xfdd0 && c <= 0xfdef);
  return control || separator || direction || not_a_character;
}

void append_hex_escape(std::string& out, char32_t c) {
  std::array<char, 8> digits;
  const auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), static_cast<std::uint32_t>(c), 16).ptr;
  out += "\\u{";
  out.append(digits.data(), end);
  out += '}';
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const code_point c = next_code_point(text);
    const std::string_view bytes = text.substr(0, c.n_bytes);
    text.remove_prefix(c.n_bytes);
    if (c.value == kReplacement) {
      out += "\xEF\xBF\xBD";
    } else if (is_shown_escaped(c.value)) {
      append_hex_escape(out, c.value);
    } else if (c.value == '&') {
      out += "&amp;";
    } else if (c.value == '<') {
      out += "&lt;";
    } else if (c.value == '>') {
      out += "&gt;";
    } else if (c.value == '"') {
      out += "&quot;";
    } else if (c.value == '\'') {
      out += "&#39;";
    } else {
      out += bytes;
    }
  }
  return out;
}

std::string shorten(std::string_view text, std::size_t max_width) {
  struct piece {
    std::size_t at;
    std::size_t width;
  };
  std::vector<piece> pieces;
  std::size_t width = 0;
  for (std::size_t at = 0; at < text.size();) {
    const code_point c = next_code_point(text.substr(at));
    pieces.push_back(
        {.at = at, .width = c.value < 0x80 && !is_shown_escaped(c.value) ? std::size_t{1} : std::size_t{2}});
    width += pieces.back().width;
    at += c.n_bytes;
  }
  if (width <= max_width) return std::string(text);
  const std::size_t keep = max_width - 1;
  std::size_t head = 0;
  std::size_t head_width = 0;
  while (head_width + pieces[head].width <= keep / 2) head_width += pieces[head++].width;
  std::size_t tail = pieces.size();
  std::size_t tail_width = 0;
  while (head_width + tail_width + pieces[tail - 1].width <= keep) tail_width += pieces[--tail].width;
  const std::size_t tail_at = tail < pieces.size() ? pieces[tail].at : text.size();
  return std::string(text.substr(0, pieces[head].at)) + "\xE2\x80\xA6" + std::string(text.substr(tail_at));
}

std::string format_fixed(double value, int digits) {
  std::array<char, 64> buffer;
  const auto [end, ec] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, digits);
  if (ec != std::errc{}) return "-";
  std::string text(buffer.data(), end);
  if (text.starts_with('-') && text.find_first_not_of("-0.") == std::string::npos) text.erase(0, 1);
  return text;
}

std::string format_count(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3;) {
    at -= 3;
    text.insert(at, 1, ',');
  }
  return text;
}

std::string format_bytes(std::uint64_t n_bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(n_bytes);
  std::size_t unit = 0;
  // The bound rounds up to the next unit what would be shown as 1000.
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  const int digits = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return format_fixed(value, digits) + " " + std::string(kUnits[unit]);
}

std::string format_percent(double share) {
  if (share <= 0) return "0%";
  if (share >= 1) return "100%";
  constexpr int kMostDigits = 9;
  for (int digits = share > 0.99 || share < 0.1 ? 2 : 1; digits < kMostDigits; ++digits) {
    const double unit = std::pow(10.0, -digits);
    const double rounded = std::round(100 * share / unit) * unit;
    if (rounded > 0 && rounded < 100 - unit / 2) return format_fixed(100 * share, digits) + "%";
  }
  return share < 0.5 ? "<0.00000001%" : ">99.99999999%";
}

std::string format_ratio(double ratio) {
  return format_fixed(ratio, ratio < 10 ? 3 : 1) + "\xC3\x97";
}

}  // namespace tersor::model_detail
