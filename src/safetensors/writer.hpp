// Builds the head of a safetensors file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "safetensors/atomic_file.hpp"
#include "safetensors/header.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

/// The header text, compact, tensors in the order given, `__metadata__` first (left out if empty), padded
/// with spaces so that the data section starts at a multiple of `alignment` (0 counts as 1). All strings are
/// valid UTF-8, names are distinct, and the entries satisfy the layout rules: this function checks none of
/// it.
[[nodiscard]] std::string build_header_json(const std::vector<tensor_entry>& tensors,
                                            const metadata_list& metadata, std::uint64_t alignment);

/// Appends the length field and the text. invalid_argument if it is longer than the format allows.
[[nodiscard]] status write_prefix(atomic_file& file, std::string_view json);

}  // namespace tersor::safetensors
