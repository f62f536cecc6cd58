// The files of a model directory, and the two ways from one directory to another.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/session.hpp"

namespace tersor::model_detail {

enum class tree_kind { directory, safetensors, config, other };

struct tree_entry {
  std::string name;  ///< below the root
  tree_kind kind = tree_kind::other;
  std::uint64_t n_bytes = 0;
};

/// All below `root`, sorted, directories before what they hold. Links to regular files count as files.
/// io_error for anything else (links to directories, pipes, ...); not_found if there is no .safetensors file.
[[nodiscard]] result<std::vector<tree_entry>> list_tree(const std::filesystem::path& root);

[[nodiscard]] result<model_report> compress_tree(session& run, const std::filesystem::path& src,
                                                 const std::filesystem::path& dst);
[[nodiscard]] result<model_report> decompress_tree(session& run, const std::filesystem::path& src,
                                                   const std::filesystem::path& dst);
/// `original` may be empty.
[[nodiscard]] result<model_report> verify_tree(session& run, const std::filesystem::path& src,
                                               const std::filesystem::path& original);
[[nodiscard]] result<model_report> inspect_tree(const std::filesystem::path& src,
                                                const model_options& options);

/// Fills a report from headers and frame indexes.
[[nodiscard]] result<file_report> inspect_file(const context& ctx, const std::filesystem::path& src,
                                               const model_options& options);

/// Size of the original of a compressed model's config.json, for progress reports; one that cannot be
/// restored is refused when its turn comes.
[[nodiscard]] std::uint64_t restored_config_bytes(const context& ctx, const std::filesystem::path& path);

}  // namespace tersor::model_detail
