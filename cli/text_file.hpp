// Small text files that the user names on the command line.
#pragma once

#include <filesystem>
#include <string>

#include <tersor/model.hpp>

namespace tersor::cli {

[[nodiscard]] result<codebook_set> read_codebooks(const std::filesystem::path& path);

}  // namespace tersor::cli
