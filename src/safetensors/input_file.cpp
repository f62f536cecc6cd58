#include "safetensors/input_file.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <new>
#include <stdexcept>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tersor::safetensors {
namespace {

// One pread moves at most 2 GiB on Linux; smaller steps keep the loop the same everywhere.
constexpr std::size_t kMaxReadStep = std::size_t{1} << 30;

}  // namespace

input_file::input_file(unique_fd fd, std::filesystem::path path, std::uint64_t n_bytes,
                       read_mode mode) noexcept
    : fd_(std::move(fd)), path_(std::move(path)), n_bytes_(n_bytes), mode_(mode) {}

input_file::input_file(input_file&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::move(other.path_)),
      n_bytes_(std::exchange(other.n_bytes_, 0)),
      mode_(other.mode_),
      mapping_(std::exchange(other.mapping_, nullptr)) {}

input_file& input_file::operator=(input_file&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  fd_ = std::move(other.fd_);
  path_ = std::move(other.path_);
  n_bytes_ = std::exchange(other.n_bytes_, 0);
  mode_ = other.mode_;
  mapping_ = std::exchange(other.mapping_, nullptr);
  return *this;
}

input_file::~input_file() {
  unmap();
}

void input_file::unmap() noexcept {
  if (mapping_ == nullptr) return;
  ::munmap(const_cast<std::byte*>(std::exchange(mapping_, nullptr)), static_cast<std::size_t>(n_bytes_));
}

result<input_file> input_file::open(const std::filesystem::path& path, read_mode mode) {
  // O_NONBLOCK: opening a pipe without a writer would wait for ever; it changes nothing on a regular file.
  unique_fd fd = open_retry(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!fd.valid()) return fail_errno(errno, "open the file", path);
  struct ::stat info {};
  if (syscalls().fstat(fd.get(), &info) != 0) return fail_errno(errno, "read the file's size", path);
  if (!S_ISREG(info.st_mode)) {
    const char* what = S_ISDIR(info.st_mode) ? "is a directory, not a file" : "is not a regular file";
    return tl::unexpected<error>(error{.code = errc::io_error, .message = what, .file = path.string()});
  }
  input_file file(std::move(fd), path, static_cast<std::uint64_t>(info.st_size), mode);
  if (mode == read_mode::mmap && file.n_bytes_ > 0) {
    if (file.n_bytes_ > std::numeric_limits<std::size_t>::max())
      return fail_errno(EFBIG, "map the file", path);
    const auto length = static_cast<std::size_t>(file.n_bytes_);
    void* mapping = syscalls().mmap(nullptr, length, PROT_READ, MAP_SHARED, file.fd_.get(), 0);
    if (mapping == MAP_FAILED) return fail_errno(errno, "map the file", path);
    file.mapping_ = static_cast<const std::byte*>(mapping);
    ::madvise(mapping, length, MADV_SEQUENTIAL);
  }
  return file;
}

tl::unexpected<error> input_file::fail_truncated(std::uint64_t offset) const {
  return tl::unexpected<error>(error{.code = errc::truncated,
                                     .message = "the file ends before the data",
                                     .file = path_.string(),
                                     .byte_offset = offset});
}

status input_file::check_range(std::uint64_t offset, std::uint64_t length) const {
  if (offset > n_bytes_ || length > n_bytes_ - offset) return fail_truncated(n_bytes_);
  return {};
}

status input_file::read_at(std::uint64_t offset, std::span<std::byte> dst) const {
  TERSOR_CHECK(check_range(offset, dst.size()));
  std::size_t done = 0;
  while (done < dst.size()) {
    const std::uint64_t at = offset + done;
    const ::ssize_t n_read = syscalls().pread(
        fd_.get(), dst.data() + done, std::min(dst.size() - done, kMaxReadStep), static_cast<::off_t>(at));
    if (n_read < 0 && errno == EINTR) continue;
    if (n_read < 0) {
      auto failure = fail_errno(errno, "read the file", path_);
      failure.value().byte_offset = at;
      return failure;
    }
    if (n_read == 0) return fail_truncated(at);
    done += static_cast<std::size_t>(n_read);
  }
  return {};
}

result<std::span<const std::byte>> input_file::view(std::uint64_t offset, std::uint64_t length,
                                                    std::vector<std::byte>& scratch) const {
  TERSOR_CHECK(check_range(offset, length));
  if (length == 0) return std::span<const std::byte>();
  const auto n_bytes = static_cast<std::size_t>(length);
  if (mode_ == read_mode::mmap) {
    // A mapped page beyond the end of a file that shrank raises SIGBUS; looking first leaves only a short
    // window.
    struct ::stat info {};
    if (syscalls().fstat(fd_.get(), &info) != 0) return fail_errno(errno, "read the file's size", path_);
    const auto now = static_cast<std::uint64_t>(info.st_size);
    if (now < offset + length) return fail_truncated(now);
    return std::span<const std::byte>(mapping_ + offset, n_bytes);
  }
  try {
    scratch.resize(n_bytes);
  } catch (const std::exception&) {
    return tl::unexpected<error>(error{.code = errc::out_of_memory,
                                       .message = "no memory for the bytes to read",
                                       .file = path_.string(),
                                       .byte_offset = offset});
  }
  TERSOR_CHECK(read_at(offset, scratch));
  return std::span<const std::byte>(scratch);
}

void input_file::drop(std::uint64_t offset, std::uint64_t length) const noexcept {
  if (mapping_ == nullptr || offset >= n_bytes_ || length == 0) return;
  // Rounded outwards: a neighbour's page that is dropped too is read again from the page cache.
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = offset / page * page;
  const std::uint64_t end = offset + std::min(length, n_bytes_ - offset);
  ::madvise(const_cast<std::byte*>(mapping_ + begin), static_cast<std::size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace tersor::safetensors
