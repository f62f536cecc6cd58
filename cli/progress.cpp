#include "progress.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "output.hpp"

namespace tersor::cli {
namespace {

std::size_t terminal_columns() {
  ::winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

std::string bar(double share) {
  constexpr std::size_t kCells = 20;
  const auto full = static_cast<std::size_t>(std::lround(share * kCells));
  return "[" + std::string(full, '#') + std::string(kCells - full, '.') + "]";
}

std::string duration_text(double seconds) {
  const auto s = static_cast<std::uint64_t>(std::clamp(seconds, 0.0, 359999.0) + 0.5);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

void write_terminal(const std::string& text) {
  // A terminal that went away is no reason to stop the work.
  [[maybe_unused]] const ::ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

progress_line::progress_line(const char* verb, bool quiet)
    : verb_(verb), enabled_(!quiet && ::isatty(STDERR_FILENO) == 1), start_(clock::now()) {}

std::function<void(const progress&)> progress_line::callback() {
  if (!enabled_) return {};
  return [this](const progress& p) { update(p); };
}

void progress_line::update(const progress& p) {
  const auto now = clock::now();
  if (drawn_ && p.done < p.total && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double share =
      p.total == 0 ? 1.0 : std::clamp(static_cast<double>(p.done) / static_cast<double>(p.total), 0.0, 1.0);
  const double rate = elapsed > 0 ? static_cast<double>(p.done) / elapsed : 0;
  const std::string eta =
      rate > 0 ? duration_text(static_cast<double>(p.total - std::min(p.done, p.total)) / rate) : "-";
  show(fmt::format("{} {} {:3.0f}%  {} / {}  {}/s  ETA {}  {}", verb_, bar(share), share * 100,
                   human_bytes(p.done), human_bytes(p.total), human_bytes(static_cast<std::uint64_t>(rate)),
                   eta, p.file));
}

void progress_line::show(const std::string& text) {
  if (!enabled_) return;
  std::string line = printable(text);
  const std::size_t room = terminal_columns() - 1;
  if (line.size() > room) {
    line.resize(room);
    // A multi-byte character cut in half is dropped whole.
    while (!line.empty() && printable(line).size() != line.size()) line.pop_back();
  }
  write_terminal("\r" + line + "\x1b[K");
  drawn_ = true;
}

void progress_line::clear() {
  if (drawn_) write_terminal("\r\x1b[K");
  drawn_ = false;
}

}  // namespace tersor::cli
