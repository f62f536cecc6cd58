// The text positions, keys and version of a compressed safetensors file (spec/container.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tersor/error.hpp>
#include <tersor/version.hpp>

namespace tersor::format {

static_assert(kContainerFormatVersion < 10, "written as one digit");
inline constexpr char kContainerVersionDigit = '0' + kContainerFormatVersion;
inline constexpr std::string_view kContainerVersion(&kContainerVersionDigit, 1);
inline constexpr std::string_view kContainerKey = "tersor";  ///< its value is the version
inline constexpr std::string_view kHeaderDigestKey = "tersor.header_digest";
inline constexpr std::string_view kDigestsKey = "tersor.digests";
inline constexpr std::string_view kOriginalHeaderKey = "tersor.header";
inline constexpr std::string_view kFrameDtype = "U8";  ///< safetensors dtype of a coded tensor
inline constexpr std::uint64_t kContainerAlignment = 128;
inline constexpr std::uint8_t kHeaderDigestDomain = 3;
inline constexpr std::uint8_t kStoredDigestDomain = 4;
inline constexpr std::size_t kHexDigits = 16;  ///< of one digest

/// True for the metadata keys that belong to the container.
[[nodiscard]] bool is_container_key(std::string_view key) noexcept;

void append_hex(std::string& out, std::uint64_t digest);
[[nodiscard]] std::string to_hex(std::uint64_t digest);
/// Exactly 16 lower-case digits.
[[nodiscard]] std::optional<std::uint64_t> parse_hex(std::string_view digits) noexcept;

/// What the text of a container header says before its JSON is believed.
struct container_head {
  std::string_view version;
  std::size_t digest_at = 0;  ///< position of the 16 digits of the header digest in the text
  std::uint64_t digest = 0;
};

/// Reads the head of the JSON text; nothing if it does not begin as every version of the container does.
[[nodiscard]] std::optional<container_head> read_container_head(std::string_view json) noexcept;

/// True if the four members stand at the start of the JSON text as kContainerVersion demands; `n_tensors`
/// digests.
[[nodiscard]] bool has_container_layout(std::string_view json, std::uint64_t n_tensors) noexcept;

/// The text with the digits of its header digest as 0, which is what that digest covers.
[[nodiscard]] std::string blank_header_digest(std::string_view json, const container_head& head);

/// The digest list; malformed unless it holds exactly `n_tensors` digests.
[[nodiscard]] result<std::vector<std::uint64_t>> parse_digests(std::string_view list,
                                                               std::uint64_t n_tensors);

}  // namespace tersor::format
