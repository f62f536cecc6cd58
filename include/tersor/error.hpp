// Errors: numbered codes that never change meaning, plus where the fault lies.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace tersor {

/// Stable numbers: shared by C++, C and Python; a number is never reused.
enum class errc : std::int32_t {
  ok = 0,
  invalid_argument = 1,  ///< the caller's arguments contradict each other or the documented limits
  destination_too_small =
      2,                    ///< the output buffer is smaller than the call needs; nothing was written past it
  truncated = 3,            ///< the data ends before what it declares
  bad_magic = 4,            ///< not a Tersor frame
  unsupported_version = 5,  ///< intact, but of a format version that this library does not read
  malformed = 6,            ///< a field or section contradicts the format
  digest_mismatch = 7,      ///< the data was changed after it was written
  unsupported = 8,          ///< this build does not know the dtype, codec or level widths
  size_overflow = 9,        ///< a product of sizes leaves 64 bits
  out_of_memory = 10,
  io_error = 11,  ///< the operating system refused; the message holds its reason
  not_found = 12,
  already_exists = 13,       ///< the destination exists and overwriting was not asked for
  backend_unavailable = 14,  ///< the named backend is not in this build or not on this machine
  cancelled = 15,            ///< the caller's cancellation flag was raised
  mismatch = 16,             ///< two inputs that should be equal differ
  wrong_kind = 17,           ///< e.g. compress of a compressed file, decompress of a plain one
  internal = 18,             ///< a bug in Tersor
};

/// Short stable name of a code, e.g. "digest_mismatch".
[[nodiscard]] std::string_view to_string(errc code) noexcept;

/// True for the codes that say "the data is wrong" (exit code 1), false for "could not" (exit code 2).
[[nodiscard]] bool is_data_error(errc code) noexcept;

/// What went wrong and where. `file`, `tensor`, `byte_offset` and `chunk` are filled as far as they are
/// known.
struct error {
  errc code = errc::internal;
  std::string message;
  std::string file = {};
  std::string tensor = {};
  std::optional<std::uint64_t> byte_offset = {};
  std::optional<std::uint64_t> chunk = {};

  /// One line: "file: tensor 'name': byte 123: chunk 4: message".
  [[nodiscard]] std::string describe() const;
};

template <class T>
using result = tl::expected<T, error>;

using status = result<void>;

/// Shorthand for returning an error.
[[nodiscard]] inline tl::unexpected<error> fail(errc code, std::string message) {
  return tl::unexpected<error>(error{.code = code, .message = std::move(message)});
}

[[nodiscard]] inline tl::unexpected<error> fail_at(errc code, std::string message,
                                                   std::uint64_t byte_offset) {
  return tl::unexpected<error>(
      error{.code = code, .message = std::move(message), .byte_offset = byte_offset});
}

}  // namespace tersor

/// Unwraps a result into `lhs` or returns its error from the calling function.
#define TERSOR_TRY(lhs, expr)                                                                  \
  auto TERSOR_CONCAT_(try_, __LINE__) = (expr);                                                \
  if (!TERSOR_CONCAT_(try_, __LINE__))                                                         \
    return tl::unexpected<::tersor::error>(std::move(TERSOR_CONCAT_(try_, __LINE__)).error()); \
  lhs = std::move(*TERSOR_CONCAT_(try_, __LINE__))

/// The same for a `status`.
#define TERSOR_CHECK(expr)                                                                        \
  do {                                                                                            \
    auto tersor_check_ = (expr);                                                                  \
    if (!tersor_check_) return tl::unexpected<::tersor::error>(std::move(tersor_check_).error()); \
  } while (false)

#define TERSOR_CONCAT2_(a, b) a##b
#define TERSOR_CONCAT_(a, b) TERSOR_CONCAT2_(a, b)
