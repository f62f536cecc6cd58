// Variants of the warp_mma kernel.
#include "cuda/gemm/gemm_launchers.hpp"
#include "cuda/gemm/launch_gemm.cuh"
#include "cuda/gemm/warp_gemm.cuh"

namespace tersor::cuda {
namespace {

template <class Weight, class Sizes>
__global__ void __launch_bounds__(Sizes::kThreads)
    warp_gemm(const __grid_constant__ warp_gemm_launch launch) {
  extern __shared__ __align__(16) unsigned char memory[];
  warp_gemm_cta<Weight, Sizes>(launch, memory);
}

template <class Weight, u32 kTokens, u32 kRowBlocks, u32 kWarps>
cudaError_t launch_variant(const warp_gemm_launch& launch, std::uint32_t groups, cudaStream_t s) {
  using sizes = warp_gemm_sizes<Weight, kTokens, kRowBlocks, kWarps>;
  const gemm_grid grid = {.x = launch.ctas,
                          .y = groups,
                          .threads = sizes::kThreads,
                          .shared_bytes = sizes::kBytes,
                          .overlap_previous = launch.overlap_previous != 0};
  return launch_gemm(warp_gemm<Weight, sizes>, grid, s, launch);
}

template <class Weight>
cudaError_t launch_tile(const warp_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                        cudaStream_t s) {
  if (tile == gemm_tile{8, 2}) return launch_variant<Weight, 8, 2, 6>(launch, groups, s);
  if (tile == gemm_tile{8, 4}) return launch_variant<Weight, 8, 4, 6>(launch, groups, s);
  if (tile == gemm_tile{16, 2}) return launch_variant<Weight, 16, 2, 4>(launch, groups, s);
  if (tile == gemm_tile{32, 2}) return launch_variant<Weight, 32, 2, 3>(launch, groups, s);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_warp_gemm(dtype type, const warp_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                             cudaStream_t s) {
  return type == dtype::f16 ? launch_tile<f16_weight>(launch, tile, groups, s)
                            : launch_tile<bf16_weight>(launch, tile, groups, s);
}

}  // namespace tersor::cuda
