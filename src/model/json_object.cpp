#include "model/json_object.hpp"

#include <nlohmann/json.hpp>

namespace tersor::model_detail {
namespace {

/// Walks a text that is known to be valid JSON.
class scanner {
 public:
  explicit scanner(std::string_view text) : text_(text) {}

  [[nodiscard]] std::size_t at() const noexcept { return at_; }
  [[nodiscard]] char next() const noexcept { return at_ < text_.size() ? text_[at_] : '\0'; }
  void step() noexcept { ++at_; }
  void skip_space() noexcept {
    while (next() == ' ' || next() == '\t' || next() == '\n' || next() == '\r') step();
  }
  void skip_string() noexcept {
    step();
    while (at_ < text_.size() && next() != '"') at_ += next() == '\\' ? 2U : 1U;
    step();
  }
  /// Ends behind the value's last byte.
  void skip_value() noexcept {
    if (next() == '"') return skip_string();
    std::size_t depth = 0;
    while (at_ < text_.size()) {
      const char c = next();
      if (c == '"') {
        skip_string();
        continue;
      }
      const bool closes = c == '}' || c == ']';
      if (depth == 0 && (closes || c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) return;
      if (c == '{' || c == '[') ++depth;
      if (closes) --depth;
      step();
      if (closes && depth == 0) return;
    }
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::optional<object_ranges> scan_object(std::string_view text, std::string_view key) {
  // The parser takes a zero byte for the end of the text, and would skip a byte order mark.
  if (text.find('\0') != std::string_view::npos || text.starts_with("\xef\xbb\xbf")) return std::nullopt;
  if (!nlohmann::json::accept(text)) return std::nullopt;
  scanner s(text);
  s.skip_space();
  if (s.next() != '{') return std::nullopt;
  s.step();
  object_ranges found{.after_brace = s.at(), .value = {}};
  s.skip_space();
  found.first_member = s.at();
  found.is_empty = s.next() == '}';
  while (s.next() == '"') {
    text_range name{.begin = s.at()};
    s.skip_string();
    name.end = s.at();
    s.skip_space();
    s.step();  // the colon
    s.skip_space();
    text_range value{.begin = s.at()};
    s.skip_value();
    value.end = s.at();
    if (nlohmann::json::parse(name.of(text)).get<std::string>() == key) found.value = value;
    s.skip_space();
    if (s.next() == ',') s.step();
    s.skip_space();
  }
  return found;
}

}  // namespace tersor::model_detail
