// Memory for benchmarks: 2 MiB aligned, on huge pages where the kernel grants them, every page touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <tersor/error.hpp>

namespace tersor::bench {

class huge_buffer {
 public:
  huge_buffer() = default;
  huge_buffer(huge_buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), n_bytes_(std::exchange(other.n_bytes_, 0)) {}
  huge_buffer& operator=(huge_buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_bytes_, other.n_bytes_);
    return *this;
  }
  ~huge_buffer();

  [[nodiscard]] static result<huge_buffer> allocate(std::uint64_t n_bytes);

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, n_bytes_}; }

 private:
  std::byte* data_ = nullptr;
  std::uint64_t n_bytes_ = 0;
};

}  // namespace tersor::bench
