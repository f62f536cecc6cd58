#include "report.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>

namespace gpu_test {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out + '"';
}

template <class Items, class ToText>
std::string list_of(const Items& items, const ToText& to_text) {
  std::string out = "[";
  for (const auto& item : items) out += (out.size() > 1 ? ", " : "") + to_text(item);
  return out + "]";
}

}  // namespace

bool section::check(bool ok, std::string_view what, std::string_view where) {
  ++checks_;
  if (ok) return true;
  ++failures_;
  std::string text(what);
  if (!where.empty()) text += ": " + std::string(where);
  const std::lock_guard lock(mutex_);
  if (kept_.size() >= kKeptFailures) return false;
  std::printf("  FAILED %s: %s\n", name_.c_str(), text.c_str());
  std::fflush(stdout);
  kept_.push_back(std::move(text));
  return false;
}

void section::note(std::string text) {
  const std::lock_guard lock(mutex_);
  notes_.push_back(std::move(text));
}

section& report::begin(std::string_view name, std::vector<int> rows) {
  sections_.push_back(std::make_unique<section>(name, std::move(rows)));
  return *sections_.back();
}

void report::end(section& s, double seconds) {
  s.seconds_ = seconds;
  std::printf("%-12s checks %9llu  values %13llu  failures %6llu  %8.2f s\n", s.name_.c_str(),
              static_cast<unsigned long long>(s.checks()), static_cast<unsigned long long>(s.values()),
              static_cast<unsigned long long>(s.failures()), seconds);
  for (const std::string& text : s.notes_) std::printf("             %s\n", text.c_str());
  std::fflush(stdout);
}

bool report::failed() const noexcept {
  return std::ranges::any_of(sections_, [](const auto& s) { return s->failures() != 0 || s->checks() == 0; });
}

bool report::write() const {
  if (json_path_.empty()) return true;
  std::ofstream out(json_path_, std::ios::trunc);
  out << "{\n  \"device\": " << quoted(machine.device) << ",\n  \"driver\": " << quoted(machine.driver)
      << ",\n  \"commit\": " << quoted(machine.commit) << ",\n  \"date\": " << quoted(machine.date)
      << ",\n  \"quick\": " << (machine.quick ? "true" : "false") << ",\n  \"sections\": [";
  for (std::size_t i = 0; i < sections_.size(); ++i) {
    const section& s = *sections_[i];
    std::vector<std::string> detail = s.notes_;
    detail.insert(detail.end(), s.kept_.begin(), s.kept_.end());
    out << (i == 0 ? "\n" : ",\n") << "    {\"name\": " << quoted(s.name_)
        << ", \"row\": " << list_of(s.rows_, [](int row) { return std::to_string(row); })
        << ", \"checks\": " << s.checks() << ", \"values\": " << s.values()
        << ", \"failures\": " << s.failures() << ", \"seconds\": " << s.seconds_
        << ", \"detail\": " << list_of(detail, quoted) << "}";
  }
  out << "\n  ]\n}\n";
  return static_cast<bool>(out.flush());
}

}  // namespace gpu_test
