#include <algorithm>
#include <set>
#include <system_error>

#include "model/config_splice.hpp"
#include "model/file_jobs.hpp"
#include "model/tree.hpp"
#include "safetensors/file_util.hpp"

namespace tersor::model_detail {
namespace {

namespace fs = std::filesystem;

result<tree_entry> classify(const fs::directory_entry& entry, const fs::path& root) {
  tree_entry out{.name = entry.path().lexically_relative(root).generic_string()};
  std::error_code ec;
  const fs::file_type own = entry.symlink_status(ec).type();
  if (!ec && own == fs::file_type::directory) {
    out.kind = tree_kind::directory;
    return out;
  }
  const fs::file_type target = ec ? own : entry.status(ec).type();
  if (ec) return safetensors::fail_errno(ec.value(), "look at the file", entry.path());
  if (target == fs::file_type::not_found)
    return fail_file(errc::not_found, "the link leads nowhere", entry.path());
  if (target == fs::file_type::directory) {
    return fail_file(errc::io_error, "a link to a directory cannot be part of a model", entry.path());
  }
  if (target != fs::file_type::regular) return fail_file(errc::io_error, "not a regular file", entry.path());
  out.n_bytes = fs::file_size(entry.path(), ec);
  if (ec) return safetensors::fail_errno(ec.value(), "look at the file", entry.path());
  if (entry.path().extension() == ".safetensors") out.kind = tree_kind::safetensors;
  return out;
}

}  // namespace

result<std::vector<tree_entry>> list_tree(const fs::path& root) {
  std::vector<tree_entry> entries;
  std::set<fs::path> with_tensors;
  std::error_code ec;
  fs::recursive_directory_iterator at(root, ec);
  for (; !ec && at != fs::recursive_directory_iterator(); at.increment(ec)) {
    TERSOR_TRY(tree_entry entry, classify(*at, root));
    if (entry.kind == tree_kind::safetensors) with_tensors.insert(fs::path(entry.name).parent_path());
    entries.push_back(std::move(entry));
  }
  if (ec) return safetensors::fail_errno(ec.value(), "list the directory", root);
  if (with_tensors.empty()) return fail_file(errc::not_found, "the directory has no .safetensors file", root);
  for (tree_entry& entry : entries) {
    const fs::path path(entry.name);
    if (entry.kind == tree_kind::other && path.filename() == kConfigName &&
        with_tensors.contains(path.parent_path())) {
      entry.kind = tree_kind::config;
    }
  }
  std::ranges::sort(entries, {}, &tree_entry::name);
  return entries;
}

}  // namespace tersor::model_detail
