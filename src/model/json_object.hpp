// Positions inside the text of a JSON object.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace tersor::model_detail {

/// Half-open range of a text.
struct text_range {
  std::size_t begin = 0;
  std::size_t end = 0;

  [[nodiscard]] std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
};

/// Where the parts of a top-level object stand.
struct object_ranges {
  std::size_t after_brace = 0;   ///< behind the opening brace
  std::size_t first_member = 0;  ///< the first key's quote, or the closing brace
  bool is_empty = true;
  std::optional<text_range>
      value;  ///< of the member that was asked for; of several the last, which parsers take
};

/// Finds the member `key` of the object that `text` is; nothing if the text is not one valid JSON object.
[[nodiscard]] std::optional<object_ranges> scan_object(std::string_view text, std::string_view key);

}  // namespace tersor::model_detail
