// Payloads as strings of fields: integers, and byte strings with their length before them. A reader never
// believes a length that it has not compared with the bytes at hand and with a limit of its own.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.hpp"
#include <tersor/error.hpp>

namespace tersor::transfer {

class field_writer {
 public:
  template <std::unsigned_integral T>
  void number(T value) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    core::store_le(&bytes_[at], value);
  }
  void raw(std::span<const std::byte> value) { bytes_.insert(bytes_.end(), value.begin(), value.end()); }
  /// Four bytes of length, then the bytes.
  void bytes(std::span<const std::byte> value) {
    number(static_cast<std::uint32_t>(value.size()));
    raw(value);
  }
  void text(std::string_view value) { bytes(std::as_bytes(std::span(value))); }
  [[nodiscard]] std::vector<std::byte> take() && { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// After a field that is not there every further one is zero or empty, and `finish` says so.
class field_reader {
 public:
  explicit field_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

  template <std::unsigned_integral T>
  [[nodiscard]] T number() noexcept {
    const auto from = take(sizeof(T));
    return from.empty() ? T{0} : core::load_le<T>(from.data());
  }
  [[nodiscard]] std::span<const std::byte> raw(std::size_t n) noexcept { return take(n); }
  [[nodiscard]] std::span<const std::byte> bytes(std::size_t limit) noexcept {
    const auto n = number<std::uint32_t>();
    if (n > limit) good_ = false;
    return good_ ? take(n) : std::span<const std::byte>{};
  }
  [[nodiscard]] std::string text(std::size_t limit) {
    const auto from = bytes(limit);
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
  /// A count of things of at least `min_bytes` each that are still to come.
  [[nodiscard]] std::uint32_t count(std::uint64_t limit, std::size_t min_bytes) noexcept {
    const auto n = number<std::uint32_t>();
    if (n > limit || std::uint64_t{n} * min_bytes > bytes_.size()) good_ = false;
    return good_ ? n : 0;
  }
  [[nodiscard]] bool good() const noexcept { return good_; }
  void reject() noexcept { good_ = false; }
  /// Every field was there, within its limits, and nothing is left.
  [[nodiscard]] status finish(const char* what) const {
    if (good_ && bytes_.empty()) return {};
    return fail(errc::malformed, std::string("malformed message: ") + what);
  }

 private:
  std::span<const std::byte> take(std::size_t n) noexcept {
    if (!good_ || n > bytes_.size()) {
      good_ = false;
      return {};
    }
    const auto taken = bytes_.first(n);
    bytes_ = bytes_.subspan(n);
    return taken;
  }

  std::span<const std::byte> bytes_;
  bool good_ = true;
};

}  // namespace tersor::transfer
