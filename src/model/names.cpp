// Tensor names and default output names.
#include <algorithm>
#include <system_error>

#include <tersor/model.hpp>

namespace tersor {
namespace {

constexpr std::string_view kExtension = ".safetensors";
constexpr std::string_view kPackedExtension = ".tersor.safetensors";
constexpr std::string_view kPackedSuffix = "-tersor";
constexpr std::string_view kRestoredSuffix = "-restored";

struct bracket_match {
  bool matches = false;
  std::size_t length = 0;  ///< of the expression; 0 if the bracket is never closed and stands for itself
};

/// `pattern` begins with '['.
bracket_match match_bracket(std::string_view pattern, char c) noexcept {
  const bool negated = pattern.size() > 1 && (pattern[1] == '!' || pattern[1] == '^');
  const std::size_t first = negated ? 2 : 1;
  bool found = false;
  for (std::size_t i = first; i < pattern.size(); ++i) {
    if (pattern[i] == ']' && i > first) return {.matches = found != negated, .length = i + 1};
    const bool range = i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']';
    const auto low = static_cast<unsigned char>(pattern[i]);
    const auto high = static_cast<unsigned char>(pattern[range ? i + 2 : i]);
    const auto value = static_cast<unsigned char>(c);
    if (low <= value && value <= high) found = true;
    if (range) i += 2;
  }
  return {};
}

/// Length of what stands at the start of `pattern` if it matches `c`, else 0. Stars are the caller's.
std::size_t match_one(std::string_view pattern, char c) noexcept {
  if (pattern.front() == '?') return 1;
  if (pattern.front() == '[') {
    const bracket_match bracket = match_bracket(pattern, c);
    if (bracket.length > 0) return bracket.matches ? bracket.length : 0;
  }
  return pattern.front() == c ? 1 : 0;
}

bool is_digits(std::string_view part) noexcept {
  return !part.empty() && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
}

/// The path without a trailing slash.
std::filesystem::path trimmed(const std::filesystem::path& path) {
  return path.has_filename() || !path.has_parent_path() ? path : path.parent_path();
}

bool names_file(const std::filesystem::path& path) {
  std::error_code ec;
  return path.filename().string().ends_with(kExtension) && !std::filesystem::is_directory(path, ec);
}

std::string without(std::string name, std::string_view suffix) {
  name.resize(name.size() - suffix.size());
  return name;
}

}  // namespace

std::string tensor_type(std::string_view name) {
  std::string type;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t dot = std::min(name.find('.', at), name.size());
    const std::string_view part = name.substr(at, dot - at);
    type += is_digits(part) ? std::string_view("*") : part;
    if (dot < name.size()) type += '.';
    at = dot + 1;
  }
  return type;
}

bool glob_match(std::string_view pattern, std::string_view name) noexcept {
  std::size_t p = 0;
  std::size_t n = 0;
  // Behind the last star, and the name's first byte that this star does not cover.
  std::size_t star = std::string_view::npos;
  std::size_t resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      resume = n;
      continue;
    }
    const std::size_t step = p < pattern.size() ? match_one(pattern.substr(p), name[n]) : 0;
    if (step > 0) {
      p += step;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::filesystem::path default_compressed_path(const std::filesystem::path& src) {
  const std::filesystem::path path = trimmed(src);
  const std::string name = path.filename().string();
  if (!names_file(path)) return path.parent_path() / (name + std::string(kPackedSuffix));
  return path.parent_path() / (without(name, kExtension) + std::string(kPackedExtension));
}

std::filesystem::path default_decompressed_path(const std::filesystem::path& src) {
  const std::filesystem::path path = trimmed(src);
  const std::string name = path.filename().string();
  if (names_file(path)) {
    const bool packed = name.ends_with(kPackedExtension) && name.size() > kPackedExtension.size();
    const std::string stem = without(name, packed ? kPackedExtension : kExtension);
    return path.parent_path() /
           (stem + (packed ? "" : std::string(kRestoredSuffix)) + std::string(kExtension));
  }
  if (name.ends_with(kPackedSuffix) && name.size() > kPackedSuffix.size()) {
    return path.parent_path() / without(name, kPackedSuffix);
  }
  return path.parent_path() / (name + std::string(kRestoredSuffix));
}

}  // namespace tersor
