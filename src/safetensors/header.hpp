// The header of a safetensors file, read strictly: what is accepted has one meaning only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "safetensors/input_file.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

inline constexpr std::uint64_t kLengthBytes = 8;               ///< the u64 before the JSON text
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  ///< limit of the format
inline constexpr unsigned kMaxNesting = 127;                   ///< objects and arrays open at once

struct tensor_entry {
  std::string name;  ///< any UTF-8; never to be used as a path
  std::string dtype = {};
  std::vector<std::uint64_t> shape = {};
  std::uint64_t begin = 0;  ///< offsets inside the data section
  std::uint64_t end = 0;

  [[nodiscard]] bool operator==(const tensor_entry&) const = default;
};

using metadata_list = std::vector<std::pair<std::string, std::string>>;

struct header {
  std::vector<tensor_entry> tensors = {};  ///< sorted by begin, then end, then name
  metadata_list metadata = {};             ///< in file order
  std::string json = {};                   ///< the header bytes as they stand in the file, with their padding
  std::uint64_t data_bytes = 0;            ///< size of the data section

  [[nodiscard]] std::uint64_t data_offset() const noexcept { return kLengthBytes + json.size(); }
};

/// Bits per element, or nothing for a dtype this build does not know.
[[nodiscard]] std::optional<unsigned> dtype_bits(std::string_view dtype) noexcept;

/// `json` is the text after the length field, `data_bytes` what follows it. Errors carry the byte offset in
/// the file and the tensor. malformed: not a legal header; size_overflow: a size leaves 64 bits; truncated:
/// the tensors need more data than there is. An unknown dtype is legal; only its offsets are checked then.
/// Unknown keys of a tensor are ignored, as the reference implementation does.
[[nodiscard]] result<header> parse_header(std::span<const std::byte> json, std::uint64_t data_bytes);

/// The same where the file is not at hand: the data section is taken to end with the last tensor.
[[nodiscard]] result<header> parse_header(std::span<const std::byte> json);

/// Checks the length field against the file before anything is allocated, then parses.
[[nodiscard]] result<header> read_header(const input_file& file);

}  // namespace tersor::safetensors
