// A file open for reading, through a read-only mapping or through pread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "safetensors/file_util.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

/// `mmap` is fastest on a local disk. `pread` turns a failing disk or network mount into an error, where a
/// mapping raises SIGBUS.
enum class read_mode { mmap, pread };

/// A regular file of fixed size. Reads are thread-safe: all members but the move operations are const.
class input_file {
 public:
  /// Directories, pipes and devices are refused with io_error; a missing file is not_found.
  [[nodiscard]] static result<input_file> open(const std::filesystem::path& path, read_mode mode);

  input_file(input_file&& other) noexcept;
  input_file& operator=(input_file&& other) noexcept;
  ~input_file();

  [[nodiscard]] std::uint64_t size() const noexcept { return n_bytes_; }  ///< at the time of open()
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] read_mode mode() const noexcept { return mode_; }

  /// Fills all of `dst`; `truncated` if the file ends before, also when it shrank since open().
  [[nodiscard]] status read_at(std::uint64_t offset, std::span<std::byte> dst) const;

  /// `length` bytes from `offset`: a part of the mapping (valid as long as this object), or `scratch` resized
  /// and filled (valid until its next use). `scratch` is untouched in mmap mode.
  [[nodiscard]] result<std::span<const std::byte>> view(std::uint64_t offset, std::uint64_t length,
                                                        std::vector<std::byte>& scratch) const;

  /// Gives the pages of a range that has been used back to the kernel, so that the resident size stays small
  /// on a file larger than memory. A hint: views stay valid. Nothing to do in pread mode.
  void drop(std::uint64_t offset, std::uint64_t length) const noexcept;

 private:
  input_file(unique_fd fd, std::filesystem::path path, std::uint64_t n_bytes, read_mode mode) noexcept;
  void unmap() noexcept;
  [[nodiscard]] status check_range(std::uint64_t offset, std::uint64_t length) const;
  [[nodiscard]] tl::unexpected<error> fail_truncated(std::uint64_t offset) const;

  unique_fd fd_;
  std::filesystem::path path_;
  std::uint64_t n_bytes_ = 0;
  read_mode mode_ = read_mode::pread;
  const std::byte* mapping_ = nullptr;  ///< null in pread mode and for an empty file
};

}  // namespace tersor::safetensors
