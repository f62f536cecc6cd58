// Variants of the tcatbe GEMM.
#include "cuda/gemm/launch_gemm.cuh"
#include "cuda/gemm/tcatbe_gemm.cuh"
#include "cuda/gemm/tcatbe_launchers.hpp"

namespace tersor::cuda {
namespace {

template <class Sizes>
__global__ void __launch_bounds__(Sizes::kThreads, tcatbe_gemm_resident(Sizes::kTokens))
    multiply_tcatbe(const __grid_constant__ tcatbe_gemm_launch launch) {
  extern __shared__ __align__(16) unsigned char memory[];
  tcatbe_gemm_cta<Sizes>(launch, memory);
}

__global__ void __launch_bounds__(kTcatbeSumThreads)
    sum_tcatbe(const __grid_constant__ tcatbe_gemm_launch launch) {
  tcatbe_sum_cta(launch);
}

template <u32 kTokens>
cudaError_t launch_tokens(const tcatbe_gemm_launch& launch, cudaStream_t s) {
  using sizes = tcatbe_gemm_sizes<kTokens>;
  const gemm_grid grid = {.x = launch.ctas, .threads = sizes::kThreads, .shared_bytes = sizes::kBytes};
  return launch_gemm(multiply_tcatbe<sizes>, grid, s, launch);
}

cudaError_t launch_product(const tcatbe_gemm_launch& launch, cudaStream_t s) {
  switch (launch.n_tile) {
    case 8:
      return launch_tokens<8>(launch, s);
    case 16:
      return launch_tokens<16>(launch, s);
    case 32:
      return launch_tokens<32>(launch, s);
    case 64:
      return launch_tokens<64>(launch, s);
    case 128:
      return launch_tokens<128>(launch, s);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t launch_tcatbe_gemm(const tcatbe_gemm_launch& launch, cudaStream_t s) {
  const cudaError_t error = launch_product(launch, s);
  if (error != cudaSuccess) return error;
  // With a whole number of row tiles for every CTA, none is shared.
  if (launch.matrix.row_tiles % launch.ctas == 0) return cudaSuccess;
  const gemm_grid grid = {.x = launch.matrix.row_tiles, .threads = kTcatbeSumThreads};
  return launch_gemm(sum_tcatbe, grid, s, launch);
}

}  // namespace tersor::cuda
