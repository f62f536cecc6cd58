// The process's live temporaries, so that a fatal signal removes them.
#pragma once

#include <filesystem>
#include <utility>

#include <tersor/error.hpp>

namespace tersor::safetensors {

enum class temp_kind { file, directory };

/// Most temporaries that can be live at once in one process.
inline constexpr int kMaxLiveTemporaries = 256;

/// Installs handlers for SIGINT, SIGTERM and SIGHUP that remove every live temporary of this process and then
/// let the signal take its default course. A signal that the process ignores stays ignored. For programs: a
/// library must not take signals from its host.
[[nodiscard]] status install_signal_cleanup();

/// A place in the registry. Publish before creating the file: a signal in between then finds nothing to
/// remove.
class temp_slot {
 public:
  temp_slot() = default;
  temp_slot(temp_slot&& other) noexcept : index_(std::exchange(other.index_, -1)) {}
  temp_slot& operator=(temp_slot&& other) noexcept {
    if (this != &other) {
      release();
      index_ = std::exchange(other.index_, -1);
    }
    return *this;
  }
  ~temp_slot() { release(); }

  /// `path` is absolute. io_error when kMaxLiveTemporaries are live already.
  [[nodiscard]] static result<temp_slot> publish(const std::filesystem::path& path, temp_kind kind);

  /// Forgets the path; the temporary itself is untouched.
  void release() noexcept;

  [[nodiscard]] bool valid() const noexcept { return index_ >= 0; }
  /// False in a child after fork(): the temporary belongs to the parent.
  [[nodiscard]] bool owned_by_this_process() const noexcept;

 private:
  explicit temp_slot(int index) noexcept : index_(index) {}
  int index_ = -1;
};

}  // namespace tersor::safetensors
