// A progress line on standard error: bytes, rate, time to go. Only for a terminal.
#pragma once

#include <chrono>

#include <tersor/model.hpp>

namespace tersor::cli {

class progress_line {
 public:
  /// Stays silent if `quiet` or if standard error is no terminal.
  progress_line(const char* verb, bool quiet);
  ~progress_line() { clear(); }
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  /// What model_options::on_progress takes; refers to this object. Empty if silent.
  [[nodiscard]] std::function<void(const progress&)> callback();

  /// One free line of text, for work that is not counted in bytes.
  void show(const std::string& text);

  /// Takes the line off the terminal.
  void clear();

 private:
  using clock = std::chrono::steady_clock;
  void update(const progress& p);

  const char* verb_;
  bool enabled_;
  bool drawn_ = false;
  clock::time_point start_;
  clock::time_point last_ = {};
};

}  // namespace tersor::cli
