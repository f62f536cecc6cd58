// Launchers of the packing kernels; the CUDA side of gpu_backend.
#pragma once

#include <cuda_runtime.h>

#include "cuda/gemm/pack_launch.hpp"

namespace tersor::cuda {

cudaError_t launch_unpack(const unpack_launch& launch, std::uint32_t ctas, cudaStream_t s);
/// `pass`: see kPackPasses.
cudaError_t launch_pack(int pass, const pack_launch& launch, std::uint32_t ctas, cudaStream_t s);

}  // namespace tersor::cuda
