#include "safetensors/syscalls.hpp"

#include <cstdio>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tersor::safetensors {
namespace {

int call_open(const char* path, int flags, ::mode_t mode) {
  return ::open(path, flags, mode);
}
int call_fstat(int fd, struct ::stat* info) {
  return ::fstat(fd, info);
}
int call_lstat(const char* path, struct ::stat* info) {
  return ::lstat(path, info);
}

// Through syscall(): the wrapper is missing from older C libraries.
int call_renameat2(const char* from, const char* to, unsigned flags) {
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags));
}

// Constant-initialised, so that a signal handler can read it at any time.
constinit syscall_table g_table = {
    .open = call_open,
    .close = ::close,
    .fstat = call_fstat,
    .lstat = call_lstat,
    .pread = ::pread,
    .pwrite = ::pwrite,
    .mmap = ::mmap,
    .munmap = ::munmap,
    .allocate = ::posix_fallocate,
    .fsync = ::fsync,
    .fchmod = ::fchmod,
    .rename = ::rename,
    .renameat2 = call_renameat2,
    .link = ::link,
    .unlink = ::unlink,
    .unlinkat = ::unlinkat,
    .mkdir = ::mkdir,
    .rmdir = ::rmdir,
};

}  // namespace

syscall_table& syscalls() noexcept {
  return g_table;
}

}  // namespace tersor::safetensors
