// Calls a function with the lane type of a dtype; launches with dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include "cuda/codec/dtypes.cuh"
#include <tersor/tensor.hpp>

namespace tersor::cuda {

template <class Body>
cudaError_t by_dtype(dtype type, const Body& body) {
  switch (type) {
    case dtype::bf16:
      return body(bf16_lane{});
    case dtype::f16:
      return body(f16_lane{});
    case dtype::f8_e4m3:
      return body(e4m3_lane{});
    case dtype::f8_e5m2:
      return body(e5m2_lane{});
    default:
      return cudaErrorInvalidValue;
  }
}

/// Launches a kernel of kCtaThreads threads with dynamic shared memory, more than 48 KiB of which must be
/// asked for.
template <class Kernel, class... Arguments>
cudaError_t run_with_memory(Kernel kernel, std::size_t shared_bytes, std::uint32_t ctas, cudaStream_t s,
                            const Arguments&... arguments) {
  constexpr std::size_t kUnasked = 48 * 1024;
  if (shared_bytes > kUnasked) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<ctas, kCtaThreads, shared_bytes, s>>>(arguments...);
  return cudaPeekAtLastError();
}

}  // namespace tersor::cuda
