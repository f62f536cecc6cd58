// What both parts of the CUDA C ABI translate.
#pragma once

#include <cstddef>

#include "c_api/call.hpp"
#include <tersor/cuda.hpp>
#include <tersor/tersor.h>

namespace tersor::c_api {

// The device writes one and the caller reads the other.
static_assert(sizeof(tersor_cuda_frame_result) == 32 && sizeof(cuda::frame_result) == 32);
static_assert(alignof(tersor_cuda_frame_result) == alignof(cuda::frame_result));
#define TERSOR_SAME_PLACE(field) \
  static_assert(offsetof(tersor_cuda_frame_result, field) == offsetof(cuda::frame_result, field))
TERSOR_SAME_PLACE(code);
TERSOR_SAME_PLACE(chunk);
TERSOR_SAME_PLACE(frame_bytes);
TERSOR_SAME_PLACE(digest);
TERSOR_SAME_PLACE(overflow);
TERSOR_SAME_PLACE(reserved);
#undef TERSOR_SAME_PLACE

[[nodiscard]] inline cuda::frame_result* as_result(tersor_cuda_frame_result* p) noexcept {
  return reinterpret_cast<cuda::frame_result*>(p);
}
[[nodiscard]] inline const cuda::frame_result* as_result(const tersor_cuda_frame_result* p) noexcept {
  return reinterpret_cast<const cuda::frame_result*>(p);
}

[[nodiscard]] inline cuda::workspace to_workspace(void* data_dev, std::uint64_t n_bytes) noexcept {
  return {.data_dev = data_dev, .n_bytes = n_bytes};
}

[[nodiscard]] inline cuda::stream to_stream(void* stream) noexcept {
  return static_cast<cuda::stream>(stream);
}

[[nodiscard]] inline result<cuda::tail_order> to_tail_order(std::int32_t id) {
  if (id == TERSOR_CUDA_TAILS_FREE) return cuda::tail_order::free;
  if (id == TERSOR_CUDA_TAILS_CANONICAL) return cuda::tail_order::canonical;
  return fail(errc::invalid_argument, "unknown tail order");
}

}  // namespace tersor::c_api
