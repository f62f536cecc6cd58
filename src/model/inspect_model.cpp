#include "model/config_splice.hpp"
#include "model/file_jobs.hpp"
#include "model/tensor_reader.hpp"
#include "model/tree.hpp"

namespace tersor::model_detail {
namespace {

namespace fs = std::filesystem;

result<file_report> inspect_plain(const safetensors::input_file& file, const safetensors::header& head) {
  file_report report{.name = file.path().filename().string(),
                     .is_safetensors = true,
                     .original_bytes = file.size(),
                     .stored_bytes = file.size(),
                     .tensors = {}};
  for (const auto& entry : head.tensors) report.tensors.push_back(stored_report(entry, 0));
  return report;
}

result<file_report> inspect_container(const container& src) {
  file_report report = report_of(src);
  std::vector<std::byte> scratch;
  for (const container_item& item : src.items) {
    if (!item.coded) {
      report.tensors.push_back(stored_report(item.original, item.digest));
      continue;
    }
    TERSOR_TRY(const auto frame, src.file.view(item.at, item.n_bytes, scratch));
    auto info = check_coded(item, frame);
    if (!info) {
      error e = std::move(info).error();
      e.file = src.file.path().string();
      e.tensor = item.original.name;
      e.byte_offset = item.at + e.byte_offset.value_or(0);
      return tl::unexpected<error>(std::move(e));
    }
    report.tensors.push_back(coded_report(item.original, *info));
  }
  return report;
}

}  // namespace

result<file_report> inspect_file(const context& ctx, const fs::path& src, const model_options& options) {
  TERSOR_TRY(auto file, open_input(src, options.read));
  TERSOR_TRY(const safetensors::header head, safetensors::read_header(file));
  if (!is_container(head)) return inspect_plain(file, head);
  TERSOR_TRY(const auto opened, open_container(ctx, std::move(file)));
  return inspect_container(opened);
}

result<model_report> inspect_tree(const fs::path& src, const model_options& options) {
  TERSOR_TRY(const context ctx, context::create(1));
  session run(ctx, options);
  TERSOR_TRY(const auto entries, list_tree(src));
  std::vector<file_report> files;
  for (const tree_entry& entry : entries) {
    if (entry.kind == tree_kind::directory) continue;
    file_report report{
        .name = entry.name, .original_bytes = entry.n_bytes, .stored_bytes = entry.n_bytes, .tensors = {}};
    if (entry.kind == tree_kind::safetensors) {
      TERSOR_TRY(report, inspect_file(ctx, src / entry.name, options));
    }
    report.name = entry.name;
    files.push_back(std::move(report));
  }
  return run.finish(std::move(files));
}

}  // namespace tersor::model_detail
