#include "model/tree.hpp"

#include <cerrno>
#include <map>
#include <optional>
#include <system_error>

#include <fcntl.h>

#include "model/config_splice.hpp"
#include "model/file_jobs.hpp"
#include "safetensors/atomic_directory.hpp"

namespace tersor::model_detail {
namespace {

namespace fs = std::filesystem;
using safetensors::atomic_file;

/// Who reads the source may read the copy.
status keep_mode(const fs::path& from, const fs::path& to) {
  std::error_code ec;
  const auto mode = static_cast<::mode_t>(fs::status(from, ec).permissions());
  if (ec) return safetensors::fail_errno(ec.value(), "look at the file", from);
  const auto fd = safetensors::open_retry(to, O_RDONLY);
  if (!fd.valid()) return safetensors::fail_errno(errno, "open the file", to);
  if (safetensors::syscalls().fchmod(fd.get(), mode & 07777U) != 0 && errno != ENOTSUP && errno != EPERM) {
    return safetensors::fail_errno(errno, "set the file's mode", to);
  }
  return {};
}

/// One direction through a tree.
class tree_walk {
 public:
  tree_walk(session& run, bool packs, const fs::path& src, const fs::path& dst)
      : run_(run), packs_(packs), src_(src), dst_(dst) {}

  result<model_report> go() {
    TERSOR_TRY(const auto entries, list_tree(src_));
    TERSOR_CHECK(set_total(entries));
    if (run_.options().dry_run) {
      TERSOR_CHECK(walk(entries, nullptr));
      return run_.finish(std::move(files_));
    }
    TERSOR_TRY(auto out, safetensors::atomic_directory::create(dst_, run_.options().overwrite));
    TERSOR_CHECK(walk(entries, &out));
    if (run_.options().verify || run_.options().remove_source) {
      TERSOR_TRY(const auto checked,
                 packs_ ? verify_tree(run_, out.path(), src_) : verify_tree(run_, src_, out.path()));
    }
    TERSOR_CHECK(out.commit());
    if (run_.options().remove_source && !safetensors::remove_tree(src_.c_str())) {
      return fail_file(errc::io_error, "the result is complete, but the source could not be removed", src_);
    }
    return run_.finish(std::move(files_));
  }

 private:
  status set_total(const std::vector<tree_entry>& entries) {
    std::uint64_t total = 0;
    for (const tree_entry& entry : entries) {
      total += entry.n_bytes;
      if (!packs_ && entry.kind == tree_kind::config)
        total += restored_config_bytes(run_.ctx(), src_ / entry.name) - entry.n_bytes;
      if (packs_ || entry.kind != tree_kind::safetensors) continue;
      TERSOR_TRY(auto file, open_input(src_ / entry.name, run_.options().read));
      TERSOR_TRY(const auto opened, open_container(run_.ctx(), std::move(file)));
      total += opened.original_bytes - entry.n_bytes;
    }
    run_.set_total(run_.options().verify || run_.options().remove_source ? 2 * total : total);
    return {};
  }

  status walk(const std::vector<tree_entry>& entries, const safetensors::atomic_directory* out) {
    for (const tree_entry& entry : entries) {
      run_.set_file(entry.name);
      TERSOR_CHECK(run_.advance(0));
      const fs::path from = src_ / entry.name;
      const fs::path to = out == nullptr ? fs::path() : out->path() / entry.name;
      if (entry.kind == tree_kind::directory) {
        std::error_code ec;
        if (out != nullptr) fs::create_directory(to, ec);
        if (ec) return safetensors::fail_errno(ec.value(), "create the directory", to);
        continue;
      }
      std::optional<atomic_file> file;
      if (out != nullptr) {
        TERSOR_TRY(file, atomic_file::create(to, false));
      }
      TERSOR_TRY(file_report report, write(entry, from, file ? &*file : nullptr));
      report.name = entry.name;
      files_.push_back(std::move(report));
      if (!file) continue;
      TERSOR_CHECK(file->commit());
      TERSOR_CHECK(keep_mode(from, to));
    }
    return {};
  }

  result<file_report> write(const tree_entry& entry, const fs::path& from, atomic_file* out) {
    if (entry.kind == tree_kind::safetensors) {
      TERSOR_TRY(auto file, open_input(from, run_.options().read));
      if (packs_) return compress_file(run_, file, out);
      TERSOR_TRY(const auto opened, open_container(run_.ctx(), std::move(file)));
      return decompress_file(run_, opened, out);
    }
    file_report report{
        .name = {}, .original_bytes = entry.n_bytes, .stored_bytes = entry.n_bytes, .tensors = {}};
    if (entry.kind == tree_kind::config) {
      TERSOR_TRY(const auto changed, changed_config(from));
      if (changed) {
        (packs_ ? report.stored_bytes : report.original_bytes) = changed->size();
        if (out != nullptr) TERSOR_CHECK(out->write(std::as_bytes(std::span(*changed))));
        TERSOR_CHECK(run_.advance(report.original_bytes));
        return report;
      }
    }
    if (out == nullptr) TERSOR_CHECK(run_.advance(entry.n_bytes));
    if (out != nullptr) TERSOR_CHECK(copy_file(run_, from, *out));
    return report;
  }

  result<std::optional<std::string>> changed_config(const fs::path& from) {
    TERSOR_TRY(const std::string text, read_text(from));
    auto changed = packs_ ? splice_config(run_.ctx(), text) : restore_config(run_.ctx(), text);
    if (changed) return changed;
    error e = std::move(changed).error();
    e.file = from.string();
    return tl::unexpected<error>(std::move(e));
  }

  session& run_;
  bool packs_;
  const fs::path& src_;
  const fs::path& dst_;
  std::vector<file_report> files_;
};

}  // namespace

result<model_report> compress_tree(session& run, const fs::path& src, const fs::path& dst) {
  return tree_walk(run, true, src, dst).go();
}

result<model_report> decompress_tree(session& run, const fs::path& src, const fs::path& dst) {
  return tree_walk(run, false, src, dst).go();
}

}  // namespace tersor::model_detail
