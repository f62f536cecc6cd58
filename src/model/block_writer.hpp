// Writes a file in large blocks: one thread fills a block while another writes the one before.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "model/byte_sink.hpp"
#include "safetensors/atomic_file.hpp"

namespace tersor::model_detail {

/// Bytes gathered before they are written.
inline constexpr std::uint64_t kBlockBytes = std::uint64_t{8} << 20;
/// Larger blocks are written before the next one is filled, so that only one of them is in memory.
inline constexpr std::uint64_t kMaxOverlapBytes = std::uint64_t{256} << 20;

/// Memory: two blocks, each as large as the largest room asked for and at least kBlockBytes; for rooms above
/// kMaxOverlapBytes one such block and one of at most kMaxOverlapBytes.
class block_writer final : public byte_sink {
 public:
  /// Writes to `file` from `offset` on; without a file the bytes are only counted.
  block_writer(safetensors::atomic_file* file, std::uint64_t offset);
  block_writer(const block_writer&) = delete;
  block_writer& operator=(const block_writer&) = delete;
  ~block_writer() override;

  [[nodiscard]] result<std::span<std::byte>> room(std::uint64_t n_min) override;
  [[nodiscard]] status take(std::uint64_t n) override;
  [[nodiscard]] status put(std::span<const std::byte> bytes) override;
  /// Waits until everything is written. Nothing may be taken afterwards.
  [[nodiscard]] status finish();

  /// Bytes taken so far.
  [[nodiscard]] std::uint64_t n_taken() const noexcept { return n_taken_; }

 private:
  struct block {
    std::unique_ptr<std::byte[]> bytes;
    std::uint64_t capacity = 0;
    std::uint64_t used = 0;
    std::uint64_t offset = 0;
  };
  [[nodiscard]] status hand_over();
  [[nodiscard]] status wait_idle();
  void stop() noexcept;
  void loop();

  safetensors::atomic_file* file_;
  std::uint64_t next_offset_;
  std::uint64_t n_taken_ = 0;
  std::array<block, 2> blocks_;
  std::size_t filling_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  block* pending_ = nullptr;  ///< being written; guarded by mutex_, as are the two below
  std::optional<error> failure_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tersor::model_detail
