// One GPU as the staging area of a transport: memory, two streams, events. Every call makes the device's
// primary context current and leaves the caller's as it was.
#pragma once

#include <vector>

#include "transfer/transports/channel.hpp"
#include "transfer/transports/nccl_api.hpp"

namespace tersor::transfer {

/// Makes the context current while it lives.
class current_context {
 public:
  explicit current_context(cuda_context c) noexcept;
  current_context(const current_context&) = delete;
  current_context& operator=(const current_context&) = delete;
  ~current_context();

 private:
  bool pushed_;
};

class staging_device {
 public:
  staging_device() = default;
  staging_device(const staging_device&) = delete;
  staging_device& operator=(const staging_device&) = delete;
  ~staging_device();

  /// TERSOR_NCCL_DEVICE chooses the device, 0 if it is not set. `host` is pinned where the driver can.
  [[nodiscard]] status open(std::span<std::byte> host, std::uint64_t slot_bytes, std::uint32_t n_slots);

  [[nodiscard]] cuda_context context() const noexcept { return context_; }
  [[nodiscard]] cuda_pointer slot(std::uint32_t index) const noexcept {
    return memory_ + index * slot_bytes_;
  }
  [[nodiscard]] std::uint64_t slot_bytes() const noexcept { return slot_bytes_; }
  [[nodiscard]] std::uint32_t n_slots() const noexcept { return n_slots_; }
  [[nodiscard]] cuda_stream copies() const noexcept { return copies_; }
  [[nodiscard]] cuda_stream messages() const noexcept { return messages_; }
  [[nodiscard]] cuda_event copied(std::uint32_t index) const noexcept { return events_[2 * index]; }
  [[nodiscard]] cuda_event moved(std::uint32_t index) const noexcept { return events_[2 * index + 1]; }

 private:
  [[nodiscard]] status make_objects(std::span<std::byte> host);

  int device_ = -1;
  cuda_context context_ = nullptr;
  cuda_pointer memory_ = 0;
  void* pinned_ = nullptr;
  std::uint64_t slot_bytes_ = 0;
  std::uint32_t n_slots_ = 0;
  cuda_stream copies_ = nullptr, messages_ = nullptr;
  std::vector<cuda_event> events_;
};

}  // namespace tersor::transfer
