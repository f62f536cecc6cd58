// Launches a kernel with what GEMMs ask of a launch: shared memory, clusters, programmatic dependent launch.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace tersor::cuda {

struct gemm_grid {
  std::uint32_t x = 1, y = 1, threads = 0;
  std::uint32_t shared_bytes = 0;
  std::uint32_t cluster = 1;
  bool overlap_previous = false;
};

template <class Kernel, class Launch>
cudaError_t launch_gemm(Kernel kernel, const gemm_grid& grid, cudaStream_t s, const Launch& launch) {
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(grid.shared_bytes));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(grid.x, grid.y);
  config.blockDim = dim3(grid.threads);
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = s;
  config.attrs = attributes;
  if (grid.cluster > 1) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = grid.cluster;
    a.val.clusterDim.y = 1;
    a.val.clusterDim.z = 1;
  }
  if (grid.overlap_previous) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, launch);
}

}  // namespace tersor::cuda
