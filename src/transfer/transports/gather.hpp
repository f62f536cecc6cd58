// A list of buffers as sendmsg() takes them, and what is left of it.
#pragma once

#include <array>
#include <cstddef>

#include <sys/uio.h>

#include "transfer/transports/channel.hpp"

namespace tersor::transfer {

class gather_list {
 public:
  explicit gather_list(std::span<const const_bytes> parts) noexcept : parts_(parts) { skip_empty(); }

  [[nodiscard]] bool done() const noexcept { return parts_.empty(); }

  /// The next buffers, at most kMost of them.
  [[nodiscard]] std::span<::iovec> next() noexcept {
    std::size_t n = 0;
    std::size_t offset = offset_;
    for (const const_bytes part : parts_) {
      if (n == kMost) break;
      const const_bytes rest = part.subspan(offset);
      offset = 0;
      if (rest.empty()) continue;
      vectors_[n++] = {.iov_base = const_cast<std::byte*>(rest.data()), .iov_len = rest.size()};
    }
    return {vectors_.data(), n};
  }

  /// `n_bytes` of what `next` returned are sent.
  void advance(std::size_t n_bytes) noexcept {
    offset_ += n_bytes;
    skip_empty();
  }

 private:
  static constexpr std::size_t kMost = 64;

  void skip_empty() noexcept {
    while (!parts_.empty() && offset_ >= parts_.front().size()) {
      offset_ -= parts_.front().size();
      parts_ = parts_.subspan(1);
    }
  }

  std::span<const const_bytes> parts_;
  std::size_t offset_ = 0;  // in the first part
  std::array<::iovec, kMost> vectors_ = {};
};

}  // namespace tersor::transfer
