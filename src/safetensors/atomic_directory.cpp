#include "safetensors/atomic_directory.hpp"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <linux/fs.h>

#include "safetensors/file_util.hpp"

namespace tersor::safetensors {
namespace {

constexpr int kNameAttempts = 16;

[[nodiscard]] bool lacks_the_call(int error_number) noexcept {
  return error_number == ENOSYS || error_number == EINVAL;
}

[[nodiscard]] status sync_file(const std::filesystem::path& path) {
  const unique_fd fd = open_retry(path, O_RDONLY | O_NOFOLLOW);
  if (!fd.valid()) return fail_errno(errno, "open the file", path);
  if (fsync_retry(fd.get()) != 0) return fail_errno(errno, "sync the file", path);
  return {};
}

[[nodiscard]] status sync_tree(const std::filesystem::path& root) {
  std::error_code ec;
  std::filesystem::recursive_directory_iterator at(root, ec);
  for (; !ec && at != std::filesystem::recursive_directory_iterator(); at.increment(ec)) {
    std::error_code type_error;
    const auto type = at->symlink_status(type_error).type();
    if (type_error) return fail_errno(type_error.value(), "look at the file", at->path());
    if (type == std::filesystem::file_type::directory) TERSOR_CHECK(sync_directory(at->path()));
    if (type == std::filesystem::file_type::regular) TERSOR_CHECK(sync_file(at->path()));
  }
  if (ec) return fail_errno(ec.value(), "list the directory", root);
  return sync_directory(root);
}

}  // namespace

result<atomic_directory> atomic_directory::create(const std::filesystem::path& final_path, bool overwrite) {
  TERSOR_TRY(std::filesystem::path resolved, resolve_output(final_path));
  struct ::stat info {};
  const bool exists = syscalls().lstat(resolved.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) return fail_errno(errno, "look at the destination", resolved);
  if (exists && !overwrite) return fail_errno(EEXIST, "create the directory", resolved);
  if (exists && !S_ISDIR(info.st_mode)) return fail_errno(ENOTDIR, "replace the destination", resolved);
  atomic_directory directory(std::move(resolved), overwrite);
  TERSOR_CHECK(directory.make_temporary());
  if (exists) {
    const unique_fd fd = open_retry(directory.path(), O_RDONLY | O_DIRECTORY);
    // The owner must be able to fill the directory; all other bits are those of the one replaced.
    const ::mode_t mode = (info.st_mode & 07777U) | 0700U;
    if (!fd.valid() || (syscalls().fchmod(fd.get(), mode) != 0 && errno != ENOTSUP && errno != EPERM)) {
      return fail_errno(errno, "set the directory's mode", directory.path());
    }
  }
  return directory;
}

atomic_directory& atomic_directory::operator=(atomic_directory&& other) noexcept {
  if (this == &other) return *this;
  discard();
  final_path_ = std::move(other.final_path_);
  temporary_path_ = std::move(other.temporary_path_);
  slot_ = std::move(other.slot_);
  overwrite_ = other.overwrite_;
  return *this;
}

status atomic_directory::make_temporary() {
  for (int attempt = 0; attempt < kNameAttempts; ++attempt) {
    temporary_path_ = temporary_beside(final_path_);
    TERSOR_TRY(slot_, temp_slot::publish(temporary_path_, temp_kind::directory));
    if (syscalls().mkdir(temporary_path_.c_str(), 0777) == 0) return {};
    const int reason = errno;
    slot_.release();
    if (reason != EEXIST) return fail_errno(reason, "create a temporary directory", temporary_path_);
  }
  return fail_errno(EEXIST, "create a temporary directory", temporary_path_);
}

status atomic_directory::commit() {
  if (!slot_.valid()) return fail(errc::invalid_argument, "the directory is committed already");
  status moved = sync_tree(temporary_path_);
  if (moved) moved = move_into_place();
  if (!moved) {
    discard();
    return moved;
  }
  status synced = sync_directory(final_path_.parent_path());
  // After an exchange the temporary name holds the old tree, which goes now that the new one is durable.
  discard();
  return synced;
}

status atomic_directory::move_into_place() {
  const char* from = temporary_path_.c_str();
  const char* to = final_path_.c_str();
  struct ::stat info {};
  if (overwrite_ && syscalls().lstat(to, &info) == 0) return replace();
  if (syscalls().renameat2(from, to, RENAME_NOREPLACE) == 0) return {};
  if (!lacks_the_call(errno)) return fail_errno(errno, "move the directory into place", final_path_);
  // mkdir() claims the name or finds it taken; rename() may replace an empty directory.
  if (syscalls().mkdir(to, 0777) != 0) return fail_errno(errno, "move the directory into place", final_path_);
  if (syscalls().rename(from, to) == 0) return {};
  const int reason = errno;
  (void)syscalls().rmdir(to);
  return fail_errno(reason, "move the directory into place", final_path_);
}

status atomic_directory::replace() {
  const char* from = temporary_path_.c_str();
  const char* to = final_path_.c_str();
  if (syscalls().renameat2(from, to, RENAME_EXCHANGE) == 0) return {};
  if (!lacks_the_call(errno)) return fail_errno(errno, "exchange the directories", final_path_);
  // Two renames: a crash between them leaves the old tree whole under the second name, which is therefore not
  // in the registry of temporaries.
  const std::filesystem::path aside = temporary_beside(final_path_);
  if (syscalls().rename(to, aside.c_str()) != 0) {
    return fail_errno(errno, "move the old directory aside", final_path_);
  }
  if (syscalls().rename(from, to) != 0) {
    const int reason = errno;
    if (syscalls().rename(aside.c_str(), to) != 0) {
      return fail_errno(reason, "move the directory into place; the old one is now " + aside.string(),
                        final_path_);
    }
    return fail_errno(reason, "move the directory into place", final_path_);
  }
  (void)remove_tree(aside.c_str());
  return {};
}

void atomic_directory::discard() noexcept {
  if (slot_.owned_by_this_process()) (void)remove_tree(temporary_path_.c_str());
  slot_.release();
}

}  // namespace tersor::safetensors
