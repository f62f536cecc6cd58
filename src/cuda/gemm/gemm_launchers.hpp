// Launchers of the GEMM kernels for layout `packed`; the CUDA side of gpu_backend.
#pragma once

#include <cuda_runtime.h>

#include "cuda/gemm/gemm_launch.hpp"
#include <tersor/tensor.hpp>

namespace tersor::cuda {

// All of them return cudaErrorInvalidValue for a tile that is not compiled (plan_rules.hpp lists those that
// are).
cudaError_t launch_warp_gemm(dtype type, const warp_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                             cudaStream_t s);
/// mma.sync, compute capability 9.0 and newer.
cudaError_t launch_bulk_gemm(dtype type, const bulk_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                             cudaStream_t s);
/// wgmma, compute capability 9.0a.
cudaError_t launch_group_gemm(dtype type, const bulk_gemm_launch& launch, gemm_tile tile,
                              std::uint32_t groups, cudaStream_t s);

}  // namespace tersor::cuda
