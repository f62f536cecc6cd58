// The system calls behind every file that Tersor reads or writes, one pointer each.
//
// The table exists for the fault tests: they replace an entry so that its n-th call fails, is interrupted or
// is short, and then look at what is left on disk. Nothing else changes it. Change it only while no other
// thread is inside this library.
#pragma once

#include <cstddef>

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

namespace tersor::safetensors {

struct syscall_table {
  int (*open)(const char* path, int flags, ::mode_t mode);
  int (*close)(int fd);
  int (*fstat)(int fd, struct ::stat* info);
  int (*lstat)(const char* path, struct ::stat* info);
  ::ssize_t (*pread)(int fd, void* dst, std::size_t n_bytes, ::off_t offset);
  ::ssize_t (*pwrite)(int fd, const void* src, std::size_t n_bytes, ::off_t offset);
  void* (*mmap)(void* address, std::size_t n_bytes, int protection, int flags, int fd, ::off_t offset);
  int (*munmap)(void* address, std::size_t n_bytes);
  int (*allocate)(int fd, ::off_t offset, ::off_t n_bytes);  ///< returns the error number; sets no errno
  int (*fsync)(int fd);
  int (*fchmod)(int fd, ::mode_t mode);
  int (*rename)(const char* from, const char* to);
  int (*renameat2)(const char* from, const char* to, unsigned flags);  ///< both paths relative to the cwd
  int (*link)(const char* from, const char* to);
  int (*unlink)(const char* path);
  int (*unlinkat)(int directory, const char* name, int flags);
  int (*mkdir)(const char* path, ::mode_t mode);
  int (*rmdir)(const char* path);
};

/// The table in use; it starts with the kernel's own calls. Reading it is async-signal-safe.
[[nodiscard]] syscall_table& syscalls() noexcept;

}  // namespace tersor::safetensors
