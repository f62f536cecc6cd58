// Memory for frames: page-aligned, not touched before it is used.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "core/checked.hpp"
#include "transfer/device/pinned_bytes.hpp"
#include <tersor/error.hpp>

namespace tersor::transfer {

class aligned_bytes {
 public:
  aligned_bytes() = default;
  /// `pinned`: for copies to and from GPUs. Errors: `out_of_memory`, `backend_unavailable`.
  [[nodiscard]] static result<aligned_bytes> allocate(std::uint64_t n_bytes, bool pinned = false) {
    constexpr std::size_t kPage = 4096;
    aligned_bytes made;
    made.n_bytes_ = n_bytes;
    if (pinned) {
      TERSOR_TRY(std::byte* const data, device::allocate_pinned(n_bytes));
      made.data_ = holder(data, device::free_pinned);
    } else {
      auto* const data =
          static_cast<std::byte*>(std::aligned_alloc(kPage, core::align_up(n_bytes + 1, kPage)));
      made.data_ = holder(data, free_plain);
    }
    if (made.data_ == nullptr) return fail(errc::out_of_memory, "no memory for frames");
    return made;
  }
  [[nodiscard]] std::span<std::byte> all() const noexcept { return {data_.get(), n_bytes_}; }

 private:
  using holder = std::unique_ptr<std::byte, void (*)(std::byte*) noexcept>;
  static void free_plain(std::byte* data) noexcept { std::free(data); }

  holder data_{nullptr, free_plain};
  std::uint64_t n_bytes_ = 0;
};

/// Bytes that a frame of a part of at most `part_bytes` needs, whatever its dtype and codec; 0 if that leaves
/// 64 bits.
[[nodiscard]] std::uint64_t frame_bound(std::uint64_t part_bytes) noexcept;

}  // namespace tersor::transfer
