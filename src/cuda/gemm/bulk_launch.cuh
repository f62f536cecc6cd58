// Launches the kernels of bulk_gemm.cuh.
#pragma once

#include <cuda.h>

#include "cuda/gemm/bulk_gemm.cuh"
#include "cuda/gemm/gemm_launchers.hpp"
#include "cuda/gemm/launch_gemm.cuh"

namespace tersor::cuda {
namespace {

template <class Weight, class Sizes>
__global__ void __launch_bounds__(Sizes::kThreads, 1)
    bulk_gemm(const __grid_constant__ bulk_gemm_launch launch) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(1024) unsigned char memory[];
  if constexpr (!Sizes::kGroups || __CUDA_ARCH__ < 1000) bulk_gemm_cta<Weight, Sizes>(launch, memory);
#endif
}

// What a CTA may have beside the little that the system takes.
constexpr std::uint32_t kSharedBytes = 227 * 1024;

/// X as a tensor for boxes of 64 columns and `box_rows` tokens, swizzled over 128 bytes.
cudaError_t describe_x(bulk_gemm_launch& launch, dtype type, std::uint32_t box_rows) {
  static const auto encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    return error == cudaSuccess ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry) : nullptr;
  }();
  if (encode == nullptr) return cudaErrorNotSupported;
  static_assert(sizeof(CUtensorMap) == sizeof launch.x_map);
  const cuuint64_t sizes[2] = {launch.op.cols, launch.x_rows}, stride = 2 * launch.op.ldx;
  const cuuint32_t box[2] = {64, box_rows}, step[2] = {1, 1};
  const CUresult result = encode(
      reinterpret_cast<CUtensorMap*>(launch.x_map),
      type == dtype::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
      const_cast<std::uint8_t*>(launch.op.x), sizes, &stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <class Weight, class Sizes>
cudaError_t launch_sizes(bulk_gemm_launch launch, std::uint32_t groups, cudaStream_t s) {
  launch.stages = Sizes::stages(launch.sections.block_bytes, kSharedBytes);
  if (launch.stages == 0) return cudaErrorInvalidValue;
  const cudaError_t error = describe_x(launch, Weight::kHalf ? dtype::f16 : dtype::bf16, Sizes::kTokens);
  if (error != cudaSuccess) return error;
  const gemm_grid grid = {.x = launch.ctas * launch.split_k,
                          .y = groups,
                          .threads = Sizes::kThreads,
                          .shared_bytes = Sizes::bytes(launch.stages, launch.sections.block_bytes),
                          .cluster = launch.split_k,
                          .overlap_previous = launch.overlap_previous != 0};
  return launch_gemm(bulk_gemm<Weight, Sizes>, grid, s, launch);
}

}  // namespace
}  // namespace tersor::cuda
