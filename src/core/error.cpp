#include <array>

#include <tersor/error.hpp>

namespace tersor {

std::string_view to_string(errc code) noexcept {
  static constexpr auto kNames = std::to_array<std::string_view>(
      {"ok", "invalid_argument", "destination_too_small", "truncated", "bad_magic", "unsupported_version",
       "malformed", "digest_mismatch", "unsupported", "size_overflow", "out_of_memory", "io_error",
       "not_found", "already_exists", "backend_unavailable", "cancelled", "mismatch", "wrong_kind",
       "internal"});
  const auto index = static_cast<std::size_t>(code);
  return index < kNames.size() ? kNames[index] : "unknown";
}

bool is_data_error(errc code) noexcept {
  switch (code) {
    case errc::truncated:
    case errc::bad_magic:
    case errc::malformed:
    case errc::digest_mismatch:
    case errc::size_overflow:
    case errc::mismatch:
      return true;
    default:
      return false;
  }
}

std::string error::describe() const {
  std::string line;
  if (!file.empty()) line += file + ": ";
  if (!tensor.empty()) line += "tensor '" + tensor + "': ";
  if (byte_offset) line += "byte " + std::to_string(*byte_offset) + ": ";
  if (chunk) line += "chunk " + std::to_string(*chunk) + ": ";
  return line + message;
}

}  // namespace tersor
