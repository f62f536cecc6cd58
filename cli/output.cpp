#include "output.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>
#include <unistd.h>

#include "command.hpp"
#include "json.hpp"

namespace tersor::cli {
namespace {

/// Returns 0 or errno.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ::ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

/// Length of the well-formed UTF-8 sequence that begins `text`, 0 if there is none.
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf5 ? 0 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool outside = (lead == 0xed && byte(1) >= 0xa0) || (lead == 0xf4 && byte(1) >= 0x90);
  return overlong || outside ? 0 : length;
}

bool is_control(std::string_view sequence) {
  const auto lead = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return lead < 0x20 || lead == 0x7f;
  return lead == 0xc2 && static_cast<unsigned char>(sequence[1]) < 0xa0;
}

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

int print(std::string_view text) {
  const int reason = write_all(STDOUT_FILENO, text);
  if (reason == 0) return kExitOk;
  const std::string line =
      fmt::format("tersor: error: cannot write to standard output: {}\n", std::strerror(reason));
  (void)write_all(STDERR_FILENO, line);
  return kExitCouldNot;
}

int report_error(const error& e, bool json) {
  (void)write_all(STDERR_FILENO, fmt::format("tersor: error: {}\n", printable(e.describe())));
  if (json) {
    if (const int code = print(json_of(e)); code != kExitOk) return code;
  }
  return is_data_error(e.code) ? kExitDataWrong : kExitCouldNot;
}

void print_warning(std::string_view message) {
  (void)write_all(STDERR_FILENO, fmt::format("tersor: warning: {}\n", printable(message)));
}

void print_note(std::string_view message) {
  (void)write_all(STDERR_FILENO, fmt::format("tersor: {}\n", printable(message)));
}

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    const std::string_view piece = text.substr(0, std::max<std::size_t>(length, 1));
    if (length == 0 || is_control(piece)) {
      for (const char c : piece) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += piece;
    }
    text.remove_prefix(piece.size());
  }
  return out;
}

std::string human_bytes(std::uint64_t n_bytes) {
  static constexpr auto kUnits = std::to_array<const char*>({"B", "kB", "MB", "GB", "TB", "PB", "EB"});
  if (n_bytes < 1000) return fmt::format("{} B", n_bytes);
  auto value = static_cast<double>(n_bytes);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, kUnits[unit]);
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

double ratio_of(std::uint64_t original, std::uint64_t stored) noexcept {
  return stored == 0 ? 1.0 : static_cast<double>(original) / static_cast<double>(stored);
}

std::string table(const std::vector<std::vector<std::string>>& rows, std::size_t n_text_columns) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - display_width(row[i]), ' ');
      line += (i == 0 ? "" : "  ") + (i < n_text_columns ? row[i] + gap : gap + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

}  // namespace tersor::cli
