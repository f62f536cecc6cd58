// Output that appears whole or not at all.
//
// The bytes go to a temporary beside the destination. commit() makes them durable and moves them into place;
// without it, or after any failure, the destructor removes the temporary and the destination is as it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "safetensors/file_util.hpp"
#include "safetensors/temp_registry.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

/// Memory that stands for a file; unmapped with this object.
class file_mapping {
 public:
  file_mapping() = default;
  explicit file_mapping(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}
  file_mapping(file_mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  file_mapping& operator=(file_mapping&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~file_mapping() { unmap(); }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  void unmap() noexcept;

 private:
  std::span<std::byte> bytes_ = {};
};

/// For one thread at a time.
class atomic_file {
 public:
  /// already_exists if something stands at `final_path` and `overwrite` is false. What is replaced must be a
  /// regular file; its mode is kept. A symbolic link is replaced itself, never the file behind it.
  [[nodiscard]] static result<atomic_file> create(const std::filesystem::path& final_path, bool overwrite);

  atomic_file(atomic_file&&) noexcept = default;
  atomic_file& operator=(atomic_file&& other) noexcept;
  ~atomic_file() { discard(); }

  [[nodiscard]] const std::filesystem::path& final_path() const noexcept { return final_path_; }
  [[nodiscard]] const std::filesystem::path& temporary_path() const noexcept { return temporary_path_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return n_bytes_; }

  /// Appends at size().
  [[nodiscard]] status write(std::span<const std::byte> src);
  /// Writes anywhere; a gap before `offset` reads as zeros. size() grows to the end of the write.
  [[nodiscard]] status write_at(std::uint64_t offset, std::span<const std::byte> src);

  /// Makes the file `n_bytes` long, at least 1, and maps all of it for writing, until commit(). Its blocks
  /// are taken first, so that a full disk is an error here and no signal later. Errors: `io_error`,
  /// `out_of_memory`.
  [[nodiscard]] result<std::span<std::byte>> map(std::uint64_t n_bytes);

  /// Syncs the file, moves it into place, syncs the directory. Refused after a failed write. Without
  /// `overwrite`, a file that appeared meanwhile is left alone (already_exists). If only the last sync fails,
  /// the complete file is in place, but may not survive a power cut.
  [[nodiscard]] status commit();

 private:
  atomic_file(std::filesystem::path final_path, bool overwrite) noexcept
      : final_path_(std::move(final_path)), overwrite_(overwrite) {}
  [[nodiscard]] status open_temporary();
  [[nodiscard]] status keep_mode(::mode_t mode);
  [[nodiscard]] status move_into_place();
  void discard() noexcept;

  std::filesystem::path final_path_;
  std::filesystem::path temporary_path_;
  temp_slot slot_;  ///< valid as long as the temporary may exist
  unique_fd fd_;
  file_mapping mapping_;
  std::uint64_t n_bytes_ = 0;
  bool overwrite_ = false;
  bool failed_ = false;
};

}  // namespace tersor::safetensors
