// A directory that appears whole or not at all, by the means of atomic_file.
#pragma once

#include <filesystem>

#include "safetensors/temp_registry.hpp"
#include <tersor/error.hpp>

namespace tersor::safetensors {

/// For one thread at a time; files inside path() may be written by any.
class atomic_directory {
 public:
  /// already_exists if something stands at `final_path` and `overwrite` is false. What is replaced must be a
  /// directory; its mode is kept.
  [[nodiscard]] static result<atomic_directory> create(const std::filesystem::path& final_path,
                                                       bool overwrite);

  atomic_directory(atomic_directory&&) noexcept = default;
  atomic_directory& operator=(atomic_directory&& other) noexcept;
  ~atomic_directory() { discard(); }

  /// The temporary directory: create files and subdirectories in it by any means.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return temporary_path_; }
  [[nodiscard]] const std::filesystem::path& final_path() const noexcept { return final_path_; }

  /// Syncs every file and directory inside, moves the tree into place, removes the tree it replaced.
  [[nodiscard]] status commit();

 private:
  atomic_directory(std::filesystem::path final_path, bool overwrite) noexcept
      : final_path_(std::move(final_path)), overwrite_(overwrite) {}
  [[nodiscard]] status make_temporary();
  [[nodiscard]] status move_into_place();
  [[nodiscard]] status replace();
  void discard() noexcept;

  std::filesystem::path final_path_;
  std::filesystem::path temporary_path_;
  temp_slot slot_;  ///< valid as long as the temporary may exist
  bool overwrite_ = false;
};

}  // namespace tersor::safetensors
