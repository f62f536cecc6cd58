// Launchers of the kernels of layout `tcatbe`; the CUDA side of gpu_backend.
#pragma once

#include <cuda_runtime.h>

#include "cuda/gemm/tcatbe_launch.hpp"

namespace tersor::cuda {

/// Both kernels of one pass. cudaErrorInvalidValue for an n_tile that is not compiled.
cudaError_t launch_tcatbe_gemm(const tcatbe_gemm_launch& launch, cudaStream_t s);
cudaError_t launch_tcatbe_unpack(const tcatbe_unpack_launch& launch, std::uint32_t ctas, cudaStream_t s);
/// `pass`: see kTcatbePackPasses.
cudaError_t launch_tcatbe_pack(int pass, const tcatbe_pack_launch& launch, std::uint32_t ctas,
                               cudaStream_t s);

}  // namespace tersor::cuda
