// Calls a function with the lane type of a dtype.
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

}  // namespace tersor::cuda
