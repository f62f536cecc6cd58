// What every function of the C ABI shares: translation of arguments, errors and exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <span>
#include <string_view>
#include <utility>

#include <tersor/error.hpp>
#include <tersor/tensor.hpp>

namespace tersor::c_api {

/// Keeps the message for tersor_last_message and returns the code's number.
std::int32_t report(errc code, std::string_view message) noexcept;

[[nodiscard]] result<dtype> to_dtype(std::int32_t id);
[[nodiscard]] result<codec> to_codec(std::int32_t id);

/// A buffer of the caller; null is allowed for empty ones only.
[[nodiscard]] result<std::span<const std::byte>> to_span(const void* data, std::uint64_t n_bytes);
[[nodiscard]] result<std::span<std::byte>> to_span(void* data, std::uint64_t n_bytes);

template <class... Pointers>
[[nodiscard]] status require(const Pointers*... pointers) {
  const bool any_null = ((pointers == nullptr) || ...);
  if (any_null) return fail(errc::invalid_argument, "a required pointer is null");
  return {};
}

/// Runs a body that returns a status.
template <class Body>
std::int32_t run(Body&& body) noexcept {
  try {
    const status done = std::forward<Body>(body)();
    if (done) return 0;
    return report(done.error().code, done.error().describe());
  } catch (const std::bad_alloc&) {
    return report(errc::out_of_memory, "out of memory");
  } catch (const std::exception& e) {
    return report(errc::internal, e.what());
  } catch (...) {
    return report(errc::internal, "unknown exception");
  }
}

/// Runs a body that returns a size as a result, for functions whose failure is the size 0; no message is
/// kept.
template <class Body>
std::uint64_t size_or_zero(Body&& body) noexcept {
  try {
    const result<std::uint64_t> size = std::forward<Body>(body)();
    return size ? *size : 0;
  } catch (...) {
    return 0;
  }
}

}  // namespace tersor::c_api
