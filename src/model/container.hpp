// A compressed safetensors file open for reading: steps 1 to 4 of "Reading" in spec/container.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "safetensors/header.hpp"
#include "safetensors/input_file.hpp"
#include <tersor/model.hpp>

namespace tersor::model_detail {

/// One tensor of the original and where its bytes, or its frame, lie in the container.
struct container_item {
  safetensors::tensor_entry original;
  std::uint64_t at = 0;  ///< absolute position in the container
  std::uint64_t n_bytes = 0;
  bool coded = false;
  std::uint64_t digest = 0;  ///< the frame digest, or the digest of the stored bytes

  [[nodiscard]] std::uint64_t original_bytes() const noexcept { return original.end - original.begin; }
};

struct container {
  safetensors::input_file file;
  std::string original_json;          ///< header of the original, verbatim
  std::uint64_t header_bytes = 0;     ///< N of the container
  std::vector<container_item> items;  ///< in the order of the original's data
  std::uint64_t original_bytes = 0;   ///< size of the original file

  [[nodiscard]] std::uint64_t original_data_offset() const noexcept {
    return safetensors::kLengthBytes + original_json.size();
  }
};

/// True if the metadata has a key of the container: the file was written by compress.
[[nodiscard]] bool is_container(const safetensors::header& head) noexcept;

/// Checks the header of an open file. wrong_kind: a plain safetensors file.
[[nodiscard]] result<container> open_container(const context& ctx, safetensors::input_file file);

[[nodiscard]] result<safetensors::input_file> open_input(const std::filesystem::path& path, read_mode mode);

/// The digest that stands in a container header.
[[nodiscard]] std::uint64_t digest_of_text(const context& ctx, std::uint8_t domain, std::string_view text);

}  // namespace tersor::model_detail
