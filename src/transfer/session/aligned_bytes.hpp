// Memory for frames: page-aligned, not touched before it is used.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "core/checked.hpp"
#include <tersor/error.hpp>

namespace tersor::transfer {

class aligned_bytes {
 public:
  aligned_bytes() = default;
  /// Errors: `out_of_memory`.
  [[nodiscard]] static result<aligned_bytes> allocate(std::uint64_t n_bytes) {
    constexpr std::size_t kPage = 4096;
    aligned_bytes made;
    made.n_bytes_ = n_bytes;
    made.data_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, core::align_up(n_bytes + 1, kPage))));
    if (made.data_ == nullptr) return fail(errc::out_of_memory, "no memory for frames");
    return made;
  }
  [[nodiscard]] std::span<std::byte> all() const noexcept { return {data_.get(), n_bytes_}; }

 private:
  struct release {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<std::byte, release> data_;
  std::uint64_t n_bytes_ = 0;
};

/// Bytes that a frame of a part of at most `part_bytes` needs, whatever its dtype and codec; 0 if that leaves
/// 64 bits.
[[nodiscard]] std::uint64_t frame_bound(std::uint64_t part_bytes) noexcept;

}  // namespace tersor::transfer
