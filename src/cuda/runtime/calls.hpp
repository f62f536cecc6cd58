// Steps that the tensor and the page calls share.
#pragma once

#include "cuda/runtime/gpu_backend.hpp"
#include "cuda/runtime/plan.hpp"

namespace tersor::cuda {

[[nodiscard]] inline result<const gpu_backend*> need_backend() {
  const gpu_backend* backend = find_gpu_backend();
  if (backend == nullptr) return fail(errc::backend_unavailable, "this build has no CUDA backend");
  return backend;
}

[[nodiscard]] inline status check_launch(const gpu_backend& backend, gpu_error error, const char* what) {
  if (error == 0) return {};
  return fail(errc::internal, std::string(what) + ": " + backend.error_text(error));
}

[[nodiscard]] inline result<std::uint32_t> need_multiprocessors(const gpu_backend& backend) {
  const std::uint32_t n = backend.multiprocessors();
  if (n == 0) return fail(errc::backend_unavailable, "no CUDA device is current");
  return n;
}

[[nodiscard]] inline status check_workspace(const workspace& ws, std::uint64_t needed) {
  if (ws.data_dev == nullptr || reinterpret_cast<std::uintptr_t>(ws.data_dev) % 16 != 0) {
    return fail(errc::invalid_argument, "the workspace is null or not 16-byte aligned");
  }
  if (ws.n_bytes < needed) {
    return fail(errc::invalid_argument, "the workspace has " + std::to_string(ws.n_bytes) + " bytes, " +
                                            std::to_string(needed) + " are needed");
  }
  return {};
}

[[nodiscard]] inline status check_frame_address(const void* frame) {
  if (frame == nullptr || reinterpret_cast<std::uintptr_t>(frame) % kFrameAlignment != 0) {
    return fail(errc::invalid_argument, "a frame's address is null or not 16-byte aligned");
  }
  return {};
}

}  // namespace tersor::cuda
