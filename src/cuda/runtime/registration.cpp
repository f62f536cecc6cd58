// The one place that knows whether this build has CUDA.
#include "cuda/runtime/gpu_backend.hpp"

namespace tersor::cuda {

#ifdef TERSOR_CUDA
const gpu_backend& linked_gpu_backend() noexcept;

const gpu_backend* find_gpu_backend() noexcept {
  return &linked_gpu_backend();
}
#else
const gpu_backend* find_gpu_backend() noexcept {
  return nullptr;
}
#endif

}  // namespace tersor::cuda
