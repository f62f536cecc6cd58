// Small text files that the user names on the command line.
#pragma once

#include <filesystem>
#include <string>

#include <tersor/model.hpp>

namespace tersor::cli {

/// A whole file of at most 1 GiB.
[[nodiscard]] result<std::string> read_text(const std::filesystem::path& path);

[[nodiscard]] result<codebook_set> read_codebooks(const std::filesystem::path& path);

}  // namespace tersor::cli
