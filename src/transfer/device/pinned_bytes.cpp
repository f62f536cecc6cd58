#include "transfer/device/pinned_bytes.hpp"

#include "transfer/device/resources.hpp"

namespace tersor::transfer::device {

result<std::byte*> allocate_pinned(std::uint64_t n_bytes) {
  void* data = nullptr;
  TERSOR_CHECK(ok(cudaHostAlloc(&data, n_bytes, cudaHostAllocPortable), "pinned memory"));
  return static_cast<std::byte*>(data);
}

void free_pinned(std::byte* data) noexcept {
  static_cast<void>(cudaFreeHost(data));
}

}  // namespace tersor::transfer::device
