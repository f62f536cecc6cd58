// The public calls on files and directories: argument checks, then the work of one file or one tree.
#include <new>
#include <optional>
#include <system_error>

#include "model/file_jobs.hpp"
#include "model/tree.hpp"

namespace tersor {
namespace {

namespace fs = std::filesystem;
using namespace model_detail;
using safetensors::atomic_file;

/// Turns what the standard library throws (no memory, no thread) and what a callback throws into codes.
template <class Body>
auto guarded(Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(errc::out_of_memory, "out of memory");
  } catch (const std::exception& e) {
    return fail(errc::internal, e.what());
  }
}

bool is_verified(const model_options& options) noexcept {
  return options.verify || options.remove_source;
}

result<bool> names_directory(const fs::path& path) {
  std::error_code ec;
  const fs::file_type type = fs::status(path, ec).type();
  if (type == fs::file_type::not_found) return fail_file(errc::not_found, "no such file or directory", path);
  if (ec) return safetensors::fail_errno(ec.value(), "look at the file", path);
  return type == fs::file_type::directory;
}

bool is_inside(const fs::path& inner, const fs::path& outer) {
  const auto [at_inner, at_outer] = std::mismatch(inner.begin(), inner.end(), outer.begin(), outer.end());
  return at_outer == outer.end();
}

/// Source and destination are different, and neither lies in the other.
status check_apart(const fs::path& src, const fs::path& dst) {
  std::error_code ec;
  const auto resolve = [&](const fs::path& path) {
    fs::path real = fs::weakly_canonical(fs::absolute(path, ec), ec);
    return real.has_filename() ? real : real.parent_path();
  };
  const fs::path from = resolve(src);
  const fs::path to = ec ? fs::path() : resolve(dst);
  if (ec) return safetensors::fail_errno(ec.value(), "resolve the path", dst);
  if (is_inside(from, to) || is_inside(to, from)) {
    return fail_file(errc::invalid_argument, "source and destination are the same or lie in one another",
                     dst);
  }
  // Two names of one file: replacing the one leaves the other, so only removing the source would lose it.
  if (fs::equivalent(from, to, ec))
    return fail_file(errc::invalid_argument, "source and destination are the same", dst);
  return {};
}

result<model_report> one_file(const session& run, file_report report) {
  std::vector<file_report> files;
  files.push_back(std::move(report));
  return run.finish(std::move(files));
}

status finish_file(const model_options& options, std::optional<atomic_file>& out, const fs::path& src) {
  if (!out) return {};
  TERSOR_CHECK(out->commit());
  if (!options.remove_source) return {};
  if (safetensors::syscalls().unlink(src.c_str()) == 0) return {};
  return fail_file(errc::io_error, "the result is complete, but the source could not be removed", src);
}

result<std::optional<atomic_file>> open_output(const fs::path& dst, const model_options& options) {
  if (options.dry_run) return std::nullopt;
  TERSOR_TRY(auto file, atomic_file::create(dst, options.overwrite));
  return std::optional<atomic_file>(std::move(file));
}

result<model_report> compress_one(session& run, const fs::path& src, const fs::path& dst) {
  const model_options& options = run.options();
  TERSOR_TRY(const auto file, open_input(src, options.read));
  const std::string name = src.filename().string();
  run.set_file(name);
  run.set_total(is_verified(options) ? 2 * file.size() : file.size());
  TERSOR_TRY(auto out, open_output(dst, options));
  TERSOR_TRY(file_report report, compress_file(run, file, out ? &*out : nullptr));
  report.name = name;
  if (out && is_verified(options)) {
    TERSOR_TRY(auto written, open_input(out->temporary_path(), options.read));
    TERSOR_TRY(const auto opened, open_container(run.ctx(), std::move(written)));
    TERSOR_TRY(const auto checked, verify_file(run, opened, &file));
  }
  TERSOR_CHECK(finish_file(options, out, src));
  return one_file(run, std::move(report));
}

result<model_report> decompress_one(session& run, const fs::path& src, const fs::path& dst) {
  const model_options& options = run.options();
  TERSOR_TRY(auto file, open_input(src, options.read));
  TERSOR_TRY(const auto opened, open_container(run.ctx(), std::move(file)));
  const std::string name = src.filename().string();
  run.set_file(name);
  run.set_total(is_verified(options) ? 2 * opened.original_bytes : opened.original_bytes);
  TERSOR_TRY(auto out, open_output(dst, options));
  TERSOR_TRY(file_report report, decompress_file(run, opened, out ? &*out : nullptr));
  if (out && is_verified(options)) {
    TERSOR_TRY(const auto written, open_input(out->temporary_path(), options.read));
    TERSOR_TRY(const auto checked, verify_file(run, opened, &written));
  }
  TERSOR_CHECK(finish_file(options, out, src));
  return one_file(run, std::move(report));
}

/// Total of the original bytes below a compressed path, for the progress reports of verify.
result<std::uint64_t> original_total(const context& ctx, const fs::path& src, read_mode mode) {
  TERSOR_TRY(const auto entries, list_tree(src));
  std::uint64_t total = 0;
  for (const tree_entry& entry : entries) {
    total += entry.n_bytes;
    if (entry.kind == tree_kind::config)
      total += restored_config_bytes(ctx, src / entry.name) - entry.n_bytes;
    if (entry.kind != tree_kind::safetensors) continue;
    TERSOR_TRY(auto file, open_input(src / entry.name, mode));
    TERSOR_TRY(const auto opened, open_container(ctx, std::move(file)));
    total += opened.original_bytes - entry.n_bytes;
  }
  return total;
}

result<model_report> verify_one(session& run, const fs::path& src, const std::optional<fs::path>& against) {
  TERSOR_TRY(auto file, open_input(src, run.options().read));
  TERSOR_TRY(const auto opened, open_container(run.ctx(), std::move(file)));
  const std::string name = src.filename().string();
  run.set_file(name);
  run.set_total(opened.original_bytes);
  std::optional<safetensors::input_file> original;
  if (against) {
    TERSOR_TRY(original, open_input(*against, run.options().read));
  }
  TERSOR_TRY(file_report report, verify_file(run, opened, original ? &*original : nullptr));
  return one_file(run, std::move(report));
}

}  // namespace

result<model_report> compress(const context& ctx, const fs::path& src, const fs::path& dst,
                              const model_options& options) {
  return guarded([&]() -> result<model_report> {
    session run(ctx, options);
    TERSOR_TRY(const bool directory, names_directory(src));
    TERSOR_CHECK(check_apart(src, dst));
    return directory ? compress_tree(run, src, dst) : compress_one(run, src, dst);
  });
}

result<model_report> decompress(const context& ctx, const fs::path& src, const fs::path& dst,
                                const model_options& options) {
  return guarded([&]() -> result<model_report> {
    session run(ctx, options);
    TERSOR_TRY(const bool directory, names_directory(src));
    TERSOR_CHECK(check_apart(src, dst));
    return directory ? decompress_tree(run, src, dst) : decompress_one(run, src, dst);
  });
}

result<model_report> verify(const context& ctx, const fs::path& src, const std::optional<fs::path>& against,
                            const model_options& options) {
  return guarded([&]() -> result<model_report> {
    session run(ctx, options);
    TERSOR_TRY(const bool directory, names_directory(src));
    if (against) {
      TERSOR_TRY(const bool other, names_directory(*against));
      if (other != directory) {
        return fail_file(errc::invalid_argument, "one is a directory, the other a file", *against);
      }
    }
    if (!directory) return verify_one(run, src, against);
    TERSOR_TRY(const std::uint64_t total, original_total(ctx, src, options.read));
    run.set_total(total);
    return verify_tree(run, src, against.value_or(fs::path()));
  });
}

result<model_report> inspect_model(const fs::path& src, const model_options& options) {
  return guarded([&]() -> result<model_report> {
    TERSOR_TRY(const bool directory, names_directory(src));
    if (directory) return inspect_tree(src, options);
    TERSOR_TRY(const context ctx, context::create(1));
    TERSOR_TRY(file_report report, inspect_file(ctx, src, options));
    return one_file(session(ctx, options), std::move(report));
  });
}

}  // namespace tersor
