// Numbers and names as a report shows them. Independent of the locale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tersor::model_detail {

/// Text for HTML and SVG, in content and in attributes: markup is escaped, control and direction-changing
/// characters become visible escapes, bytes that are no UTF-8 become U+FFFD.
[[nodiscard]] std::string escape_html(std::string_view text);

/// At most `max_width` columns (a non-ASCII character counts as two), the middle replaced by an ellipsis. Not
/// escaped.
[[nodiscard]] std::string shorten(std::string_view text, std::size_t max_width);

[[nodiscard]] std::string format_fixed(double value, int digits);
/// "1,234,567"
[[nodiscard]] std::string format_count(std::uint64_t value);
/// "3.31 MB", decimal units.
[[nodiscard]] std::string format_bytes(std::uint64_t n_bytes);
/// "99.98%"; never "100%" or "0%" for a share that is not.
[[nodiscard]] std::string format_percent(double share);
/// "1.49×"
[[nodiscard]] std::string format_ratio(double ratio);

}  // namespace tersor::model_detail
