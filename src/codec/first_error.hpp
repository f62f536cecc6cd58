// The verdict of work that several threads share.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include <tersor/error.hpp>

namespace tersor::codec_detail {

/// Keeps the error of the lowest chunk (or block), so that the verdict does not depend on threads.
class first_error {
 public:
  [[nodiscard]] bool is_past(std::uint64_t chunk) const noexcept {
    return chunk > lowest_.load(std::memory_order_relaxed);
  }
  void note(std::uint64_t chunk, errc code, const char* message) noexcept {
    const std::lock_guard lock(mutex_);
    if (chunk >= lowest_.load(std::memory_order_relaxed)) return;
    lowest_.store(chunk, std::memory_order_relaxed);
    code_ = code;
    message_ = message;
  }
  [[nodiscard]] status to_status() const {
    if (code_ == errc::ok) return {};
    auto e = fail(code_, message_);
    e.value().chunk = lowest_.load();
    return e;
  }

 private:
  std::mutex mutex_;
  std::atomic<std::uint64_t> lowest_{~std::uint64_t{0}};
  errc code_ = errc::ok;
  const char* message_ = "";
};

}  // namespace tersor::codec_detail
