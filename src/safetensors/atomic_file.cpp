#include "safetensors/atomic_file.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>

#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#include "core/checked.hpp"

namespace tersor::safetensors {
namespace {

constexpr int kNameAttempts = 16;
constexpr std::size_t kMaxWriteStep = std::size_t{1} << 30;

struct destination {
  bool exists = false;
  bool keeps_mode = false;
  ::mode_t mode = 0;
};

// What stands at the destination, with the checks that do not depend on the bytes to be written.
[[nodiscard]] result<destination> look_at(const std::filesystem::path& path, bool overwrite) {
  struct ::stat info {};
  if (syscalls().lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return destination{};
    return fail_errno(errno, "look at the destination", path);
  }
  if (!overwrite) return fail_errno(EEXIST, "create the file", path);
  if (S_ISLNK(info.st_mode)) return destination{.exists = true};
  if (!S_ISREG(info.st_mode)) {
    return tl::unexpected<error>(error{
        .code = errc::io_error, .message = "the destination is not a regular file", .file = path.string()});
  }
  return destination{.exists = true, .keeps_mode = true, .mode = info.st_mode & 07777};
}

int allocate_retry(int fd, std::uint64_t n_bytes) {
  for (;;) {
    const int reason = syscalls().allocate(fd, 0, static_cast<::off_t>(n_bytes));
    if (reason != EINTR) return reason;
  }
}

}  // namespace

result<atomic_file> atomic_file::create(const std::filesystem::path& final_path, bool overwrite) {
  TERSOR_TRY(std::filesystem::path resolved, resolve_output(final_path));
  TERSOR_TRY(const destination found, look_at(resolved, overwrite));
  atomic_file file(std::move(resolved), overwrite);
  TERSOR_CHECK(file.open_temporary());
  if (found.keeps_mode) TERSOR_CHECK(file.keep_mode(found.mode));
  return file;
}

atomic_file& atomic_file::operator=(atomic_file&& other) noexcept {
  if (this == &other) return *this;
  discard();
  final_path_ = std::move(other.final_path_);
  temporary_path_ = std::move(other.temporary_path_);
  slot_ = std::move(other.slot_);
  fd_ = std::move(other.fd_);
  mapping_ = std::move(other.mapping_);
  n_bytes_ = other.n_bytes_;
  overwrite_ = other.overwrite_;
  failed_ = other.failed_;
  return *this;
}

status atomic_file::open_temporary() {
  for (int attempt = 0; attempt < kNameAttempts; ++attempt) {
    temporary_path_ = temporary_beside(final_path_);
    TERSOR_TRY(slot_, temp_slot::publish(temporary_path_, temp_kind::file));
    fd_ = open_retry(temporary_path_, O_RDWR | O_CREAT | O_EXCL, 0666);
    if (fd_.valid()) return {};
    const int reason = errno;
    slot_.release();
    if (reason != EEXIST) return fail_errno(reason, "create a temporary file", temporary_path_);
  }
  return fail_errno(EEXIST, "create a temporary file", temporary_path_);
}

status atomic_file::keep_mode(::mode_t mode) {
  // A file system without modes refuses; the copy then has the mode that any file there has.
  if (syscalls().fchmod(fd_.get(), mode) == 0 || errno == ENOTSUP || errno == EPERM) return {};
  return fail_errno(errno, "set the file's mode", temporary_path_);
}

status atomic_file::write(std::span<const std::byte> src) {
  return write_at(n_bytes_, src);
}

status atomic_file::write_at(std::uint64_t offset, std::span<const std::byte> src) {
  if (!fd_.valid()) return fail(errc::invalid_argument, "the file is closed");
  const auto end = core::checked_add(offset, src.size());
  if (!end || *end > static_cast<std::uint64_t>(std::numeric_limits<::off_t>::max())) {
    failed_ = true;
    return fail_errno(EFBIG, "write the file", final_path_);
  }
  std::size_t done = 0;
  while (done < src.size()) {
    const std::uint64_t at = offset + done;
    const ::ssize_t n_written = syscalls().pwrite(
        fd_.get(), src.data() + done, std::min(src.size() - done, kMaxWriteStep), static_cast<::off_t>(at));
    if (n_written < 0 && errno == EINTR) continue;
    if (n_written <= 0) {
      failed_ = true;
      auto failure = fail_errno(n_written < 0 ? errno : ENOSPC, "write the file", final_path_);
      failure.value().byte_offset = at;
      return failure;
    }
    done += static_cast<std::size_t>(n_written);
  }
  n_bytes_ = std::max(n_bytes_, *end);
  return {};
}

void file_mapping::unmap() noexcept {
  const auto bytes = std::exchange(bytes_, {});
  if (!bytes.empty()) (void)syscalls().munmap(bytes.data(), bytes.size());
}

result<std::span<std::byte>> atomic_file::map(std::uint64_t n_bytes) {
  if (!fd_.valid()) return fail(errc::invalid_argument, "the file is closed");
  if (n_bytes == 0 || n_bytes > static_cast<std::uint64_t>(std::numeric_limits<::off_t>::max()) ||
      n_bytes > std::numeric_limits<std::size_t>::max()) {
    return fail_errno(EFBIG, "reserve the file's space", final_path_);
  }
  const int refused = allocate_retry(fd_.get(), n_bytes);
  if (refused != 0) return fail_errno(refused, "reserve the file's space", final_path_);
  const auto size = static_cast<std::size_t>(n_bytes);
  void* const address = syscalls().mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (address == MAP_FAILED) return fail_errno(errno, "map the file", final_path_);
  mapping_ = file_mapping({static_cast<std::byte*>(address), size});
  n_bytes_ = std::max(n_bytes_, n_bytes);
  return mapping_.bytes();
}

status atomic_file::commit() {
  if (!fd_.valid()) return fail(errc::invalid_argument, "the file is closed");
  if (failed_) {
    discard();
    return tl::unexpected<error>(error{.code = errc::io_error,
                                       .message = "not completed, because a write failed",
                                       .file = final_path_.string()});
  }
  mapping_.unmap();
  status moved = [&]() -> status {
    if (fsync_retry(fd_.get()) != 0) return fail_errno(errno, "sync the file", final_path_);
    // Network file systems report a late write error here.
    if (fd_.close() != 0) return fail_errno(errno, "close the file", final_path_);
    return move_into_place();
  }();
  if (!moved) {
    discard();
    return moved;
  }
  slot_.release();
  return sync_directory(final_path_.parent_path());
}

status atomic_file::move_into_place() {
  const char* from = temporary_path_.c_str();
  const char* to = final_path_.c_str();
  if (overwrite_) {
    if (syscalls().rename(from, to) == 0) return {};
    return fail_errno(errno, "move the file into place", final_path_);
  }
  if (syscalls().renameat2(from, to, RENAME_NOREPLACE) == 0) return {};
  if (errno != ENOSYS && errno != EINVAL) return fail_errno(errno, "move the file into place", final_path_);
  // Kernels and file systems without RENAME_NOREPLACE: link() refuses an existing name just as well.
  if (syscalls().link(from, to) != 0) return fail_errno(errno, "move the file into place", final_path_);
  if (syscalls().unlink(from) == 0) return {};
  return fail_errno(errno, "remove the temporary (the output is complete)", temporary_path_);
}

void atomic_file::discard() noexcept {
  mapping_.unmap();
  (void)fd_.close();
  if (slot_.owned_by_this_process()) (void)syscalls().unlink(temporary_path_.c_str());
  slot_.release();
}

}  // namespace tersor::safetensors
