// Pieces shared by the readers and writers of files: descriptors, errors from errno, output names,
// durability.
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "safetensors/syscalls.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

/// Owns a file descriptor.
class unique_fd {
 public:
  unique_fd() = default;
  explicit unique_fd(int fd) noexcept : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) {
      (void)close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~unique_fd() { (void)close(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  /// Returns the call's result; the descriptor is gone either way, as Linux releases it even on an error.
  int close() noexcept { return fd_ < 0 ? 0 : syscalls().close(std::exchange(fd_, -1)); }

 private:
  int fd_ = -1;
};

/// "cannot <doing>: <reason>" for the file; `not_found` and `already_exists` where errno says so.
[[nodiscard]] tl::unexpected<error> fail_errno(int error_number, std::string_view doing,
                                               const std::filesystem::path& path);

/// open() with O_CLOEXEC, repeated while interrupted.
[[nodiscard]] unique_fd open_retry(const std::filesystem::path& path, int flags, ::mode_t mode = 0) noexcept;

/// fsync of an open descriptor, repeated while interrupted.
[[nodiscard]] int fsync_retry(int fd) noexcept;

/// Makes the entries of a directory durable. A file system that cannot sync a directory is not an error.
[[nodiscard]] status sync_directory(const std::filesystem::path& directory);

/// The absolute path of an output, without a trailing slash; "", ".", ".." and "/" are refused.
[[nodiscard]] result<std::filesystem::path> resolve_output(const std::filesystem::path& path);

/// A fresh name beside `final_path`: `.<basename>.tersor-<pid>-<random>.tmp`. A long basename is cut so that
/// the name fits in 255 bytes.
[[nodiscard]] std::filesystem::path temporary_beside(const std::filesystem::path& final_path);

/// Removes a directory and all below it without following links. Async-signal-safe. False if anything is
/// left.
bool remove_tree(const char* path) noexcept;

}  // namespace tersor::safetensors
