#include "safetensors/file_util.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tersor::safetensors {
namespace {

constexpr std::size_t kMaxBasename = 200;  // leaves room for the suffix in a 255-byte name
constexpr int kMaxTreeDepth = 64;

[[nodiscard]] std::uint64_t random_bits() noexcept {
  std::uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, GRND_NONBLOCK) == static_cast<::ssize_t>(sizeof bits)) return bits;
  // Uniqueness is enough here: O_EXCL catches a collision.
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

bool remove_below(int directory, int depth) noexcept;

bool remove_entry(int directory, const char* name, int depth) noexcept {
  if (syscalls().unlinkat(directory, name, 0) == 0) return true;
  if (errno != EISDIR && errno != EPERM) return errno == ENOENT;
  const int child = ::openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (child < 0) return false;
  const bool empty = remove_below(child, depth + 1);
  ::close(child);
  return empty && syscalls().unlinkat(directory, name, AT_REMOVEDIR) == 0;
}

// The kernel's directory record: 8 bytes inode, 8 bytes offset, 2 bytes record length, 1 byte type, name.
// readdir() would allocate, which a signal handler must not.
bool remove_below(int directory, int depth) noexcept {
  constexpr std::size_t kLengthAt = 16;
  constexpr std::size_t kNameAt = 19;
  if (depth > kMaxTreeDepth) return false;
  alignas(8) std::array<char, 2048> records;
  bool removed = false;
  for (;;) {
    const long n_bytes = ::syscall(SYS_getdents64, directory, records.data(), records.size());
    if (n_bytes < 0) return false;
    if (n_bytes == 0) {
      // Entries may move while others are removed, so only a pass that found nothing is the last.
      if (!removed) return true;
      removed = false;
      if (::lseek(directory, 0, SEEK_SET) != 0) return false;
      continue;
    }
    for (std::size_t at = 0; at < static_cast<std::size_t>(n_bytes);) {
      std::uint16_t length = 0;
      std::memcpy(&length, records.data() + at + kLengthAt, sizeof length);
      const char* name = records.data() + at + kNameAt;
      at += length;
      if (std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0) continue;
      if (!remove_entry(directory, name, depth)) return false;
      removed = true;
    }
  }
}

}  // namespace

tl::unexpected<error> fail_errno(int error_number, std::string_view doing,
                                 const std::filesystem::path& path) {
  errc code = errc::io_error;
  if (error_number == ENOENT) code = errc::not_found;
  if (error_number == EEXIST) code = errc::already_exists;
  if (error_number == ENOMEM) code = errc::out_of_memory;
  std::string message = "cannot ";
  message += doing;
  message += ": ";
  message += std::generic_category().message(error_number);
  return tl::unexpected<error>(error{.code = code, .message = std::move(message), .file = path.string()});
}

unique_fd open_retry(const std::filesystem::path& path, int flags, ::mode_t mode) noexcept {
  for (;;) {
    const int fd = syscalls().open(path.c_str(), flags | O_CLOEXEC, mode);
    if (fd >= 0 || errno != EINTR) return unique_fd(fd);
  }
}

int fsync_retry(int fd) noexcept {
  for (;;) {
    const int rc = syscalls().fsync(fd);
    if (rc == 0 || errno != EINTR) return rc;
  }
}

status sync_directory(const std::filesystem::path& directory) {
  const unique_fd fd = open_retry(directory, O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) return fail_errno(errno, "open the directory", directory);
  if (fsync_retry(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    return fail_errno(errno, "sync the directory", directory);
  }
  return {};
}

result<std::filesystem::path> resolve_output(const std::filesystem::path& path) {
  std::error_code ec;
  std::filesystem::path absolute = std::filesystem::absolute(path, ec);
  if (!ec && !absolute.has_filename()) absolute = absolute.parent_path();
  const std::string name = absolute.filename().string();
  if (ec || path.empty() || name.empty() || name == "." || name == "..") {
    return tl::unexpected<error>(error{.code = errc::invalid_argument,
                                       .message = "the output path does not name a file or directory",
                                       .file = path.string()});
  }
  return absolute;
}

std::filesystem::path temporary_beside(const std::filesystem::path& final_path) {
  std::string name = final_path.filename().string();
  if (name.size() > kMaxBasename) {
    std::size_t cut = kMaxBasename;
    while (cut > 0 && (static_cast<unsigned char>(name[cut]) & 0xc0U) == 0x80U) --cut;  // keep UTF-8 whole
    name.resize(cut);
  }
  std::array<char, 64> suffix{};
  std::snprintf(suffix.data(), suffix.size(), ".tersor-%ld-%016" PRIx64 ".tmp", static_cast<long>(::getpid()),
                random_bits());
  return final_path.parent_path() / ("." + name + suffix.data());
}

bool remove_tree(const char* path) noexcept {
  return remove_entry(AT_FDCWD, path, 0);
}

}  // namespace tersor::safetensors
