// How a safetensors file becomes a manifest (spec/transfer-files.md): both ends compute it from the header.
#pragma once

#include <string>
#include <vector>

#include "safetensors/header.hpp"
#include <tersor/transfer.hpp>

namespace tersor::transfer {

/// Most regions of a file, that of the header included.
inline constexpr std::size_t kMaxFileRegions = 4096;

/// A region and where it begins in the file.
struct file_region {
  region what;
  std::uint64_t begin = 0;
  std::uint64_t n_bytes = 0;
};

/// Every byte of the file in order: the header, then the tensors that have bytes.
[[nodiscard]] std::vector<file_region> regions_of(const safetensors::header& header);

/// Layer and K or V by the words of a tensor's name; `other` where they do not say.
struct cache_place {
  std::uint32_t layer = 0;
  part_kind kind = part_kind::other;
};
[[nodiscard]] cache_place place_of(std::string_view tensor_name);

/// The manifest's note: which file this is.
struct file_note {
  std::uint64_t file_bytes = 0;
  std::string name;  ///< as the sender says, at most kMaxOfferedName bytes of any value
};
inline constexpr std::size_t kMaxOfferedName = 255;
[[nodiscard]] std::vector<std::byte> write_note(const file_note& note);
/// Errors: `malformed`, `unsupported_version`.
[[nodiscard]] result<file_note> read_note(std::span<const std::byte> bytes);

/// A name for a file in a directory, whatever was offered: letters, digits and a few marks, never hidden,
/// never a path, not too long for a temporary beside it.
[[nodiscard]] std::string harmless_name(std::string_view offered);

}  // namespace tersor::transfer
