// What the sections found, on the terminal and as JSON.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace gpu_test {

/// The checks of one section; several threads may report.
class section {
 public:
  section(std::string_view name, std::vector<int> rows) : name_(name), rows_(std::move(rows)) {}

  /// Counts a check and returns `ok`. The first failures are kept with their text.
  bool check(bool ok, std::string_view what, std::string_view where = {});
  /// Values that went through a codec and were compared.
  void add_values(std::uint64_t n) noexcept { values_ += n; }
  /// A remark for the report: what was skipped, what was measured.
  void note(std::string text);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] std::uint64_t checks() const noexcept { return checks_; }
  [[nodiscard]] std::uint64_t failures() const noexcept { return failures_; }
  [[nodiscard]] std::uint64_t values() const noexcept { return values_; }

 private:
  friend class report;
  static constexpr std::size_t kKeptFailures = 20;

  std::string name_;
  std::vector<int> rows_;
  std::atomic<std::uint64_t> checks_ = 0, failures_ = 0, values_ = 0;
  double seconds_ = 0;
  std::mutex mutex_;
  std::vector<std::string> kept_, notes_;
};

struct machine_record {
  std::string device, driver, commit, date;
  bool quick = false;
};

/// All sections of a run.
class report {
 public:
  explicit report(std::string json_path) : json_path_(std::move(json_path)) {}

  machine_record machine;

  section& begin(std::string_view name, std::vector<int> rows);
  void end(section& s, double seconds);
  /// Writes the JSON file if one was asked for; false if that failed.
  [[nodiscard]] bool write() const;
  [[nodiscard]] bool failed() const noexcept;

 private:
  std::string json_path_;
  std::vector<std::unique_ptr<section>> sections_;
};

}  // namespace gpu_test
