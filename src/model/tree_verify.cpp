#include <map>

#include "model/config_splice.hpp"
#include "model/file_jobs.hpp"
#include "model/tree.hpp"

namespace tersor::model_detail {
namespace {

namespace fs = std::filesystem;

/// Both trees have the same names, each of the same nature.
status compare_names(const std::vector<tree_entry>& packed, const fs::path& packed_root,
                     const std::vector<tree_entry>& original, const fs::path& original_root) {
  std::map<std::string_view, bool> is_directory;
  for (const tree_entry& entry : original)
    is_directory.emplace(entry.name, entry.kind == tree_kind::directory);
  for (const tree_entry& entry : packed) {
    const auto found = is_directory.find(entry.name);
    if (found == is_directory.end() || found->second != (entry.kind == tree_kind::directory)) {
      return fail_file(errc::mismatch, "the original has no such file", packed_root / entry.name);
    }
    is_directory.erase(found);
  }
  if (is_directory.empty()) return {};
  return fail_file(errc::mismatch, "the file is missing from the compressed model",
                   original_root / is_directory.begin()->first);
}

status compare_config(session& run, const fs::path& packed, const fs::path& original,
                      std::uint64_t& original_bytes) {
  TERSOR_TRY(const std::string text, read_text(packed));
  auto restored = restore_config(run.ctx(), text);
  if (!restored) {
    error e = std::move(restored).error();
    e.file = packed.string();
    return tl::unexpected<error>(std::move(e));
  }
  const std::string& bytes = *restored ? **restored : text;
  original_bytes = bytes.size();
  if (original.empty()) return run.advance(bytes.size());
  TERSOR_TRY(const std::string expected, read_text(original));
  if (bytes != expected)
    return fail_file(errc::mismatch, "the restored config.json differs from the original", original);
  return run.advance(bytes.size());
}

result<file_report> verify_entry(session& run, const tree_entry& entry, const fs::path& src,
                                 const fs::path& original) {
  if (entry.kind == tree_kind::safetensors) {
    TERSOR_TRY(auto file, open_input(src, run.options().read));
    TERSOR_TRY(const auto opened, open_container(run.ctx(), std::move(file)));
    if (original.empty()) return verify_file(run, opened, nullptr);
    TERSOR_TRY(const auto expected, open_input(original, run.options().read));
    return verify_file(run, opened, &expected);
  }
  file_report report{
      .name = {}, .original_bytes = entry.n_bytes, .stored_bytes = entry.n_bytes, .tensors = {}};
  if (entry.kind == tree_kind::config) {
    TERSOR_CHECK(compare_config(run, src, original, report.original_bytes));
  } else if (!original.empty()) {
    TERSOR_CHECK(compare_files(run, src, original));
  } else {
    TERSOR_CHECK(run.advance(entry.n_bytes));
  }
  return report;
}

}  // namespace

std::uint64_t restored_config_bytes(const context& ctx, const fs::path& path) {
  const auto text = read_text(path);
  if (!text) return 0;
  const auto restored = restore_config(ctx, *text);
  return restored && *restored ? (*restored)->size() : text->size();
}

result<model_report> verify_tree(session& run, const fs::path& src, const fs::path& original) {
  TERSOR_TRY(const auto entries, list_tree(src));
  if (!original.empty()) {
    TERSOR_TRY(const auto expected, list_tree(original));
    TERSOR_CHECK(compare_names(entries, src, expected, original));
  }
  std::vector<file_report> files;
  for (const tree_entry& entry : entries) {
    if (entry.kind == tree_kind::directory) continue;
    run.set_file(entry.name);
    const fs::path other = original.empty() ? fs::path() : original / entry.name;
    TERSOR_TRY(file_report report, verify_entry(run, entry, src / entry.name, other));
    report.name = entry.name;
    files.push_back(std::move(report));
  }
  return run.finish(std::move(files));
}

}  // namespace tersor::model_detail
