// What compress and decompress have in common: a source, a destination and the habits around them.
#pragma once

#include <filesystem>
#include <string>

#include "command.hpp"

namespace tersor::cli {

struct transform_flags {
  common_flags common;
  std::string source;
  std::string destination;  ///< empty: the default name
  bool force = false;
  bool remove = false;
  bool dry_run = false;
  bool verify = false;
};

/// SRC -o -f --rm --dry-run --verify and the common flags.
void add_transform_flags(CLI::App& verb, transform_flags& flags);

[[nodiscard]] std::filesystem::path destination_of(
    const transform_flags& flags, std::filesystem::path (*default_path)(const std::filesystem::path&));

[[nodiscard]] model_options transform_options(const transform_flags& flags);

/// Row per file, and per tensor when verbose.
[[nodiscard]] std::string file_table(const model_report& report, bool with_tensors);

}  // namespace tersor::cli
