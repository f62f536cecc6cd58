// Packing and unpacking of layout tcatbe.
#include "cuda/gemm/launch_gemm.cuh"
#include "cuda/gemm/tcatbe_launchers.hpp"
#include "cuda/gemm/tcatbe_pack.cuh"
#include "cuda/gemm/tcatbe_unpack.cuh"

namespace tersor::cuda {
namespace {

__global__ void begin_unpack(const __grid_constant__ tcatbe_unpack_launch launch) {
  begin_tcatbe_unpack(launch);
}

__global__ void __launch_bounds__(tcatbe_unpack_shared::kThreads, kTcatbeUnpackCtas)
    unpack_tiles(const __grid_constant__ tcatbe_unpack_launch launch) {
  extern __shared__ __align__(16) unsigned char memory[];
  tcatbe_unpack_cta(launch, *reinterpret_cast<tcatbe_unpack_shared*>(memory));
}

__global__ void __launch_bounds__(kCtaThreads)
    count_exponents(const __grid_constant__ tcatbe_pack_launch launch) {
  __shared__ tcatbe_count_shared shared;
  count_exponents_cta(launch, shared);
}
__global__ void __launch_bounds__(kCtaThreads)
    choose_window(const __grid_constant__ tcatbe_pack_launch launch) {
  __shared__ tcatbe_window_shared shared;
  choose_window_cta(launch, shared);
}
__global__ void __launch_bounds__(kCtaThreads)
    count_tiles(const __grid_constant__ tcatbe_pack_launch launch) {
  __shared__ tcatbe_strips_shared shared;
  count_tiles_cta(launch, shared);
}
__global__ void __launch_bounds__(kTcatbePlaceThreads)
    place_tiles(const __grid_constant__ tcatbe_pack_launch launch) {
  __shared__ tcatbe_place_shared shared;
  place_tiles_cta(launch, shared);
}
__global__ void __launch_bounds__(tcatbe_write_shared::kThreads)
    write_tiles(const __grid_constant__ tcatbe_pack_launch launch) {
  __shared__ tcatbe_write_shared shared;
  write_tiles_cta(launch, shared);
}

}  // namespace

cudaError_t launch_tcatbe_unpack(const tcatbe_unpack_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  if (launch.result != nullptr) {
    begin_unpack<<<1, 1, 0, s>>>(launch);
    const cudaError_t error = cudaPeekAtLastError();
    if (error != cudaSuccess) return error;
  }
  const gemm_grid grid = {
      .x = ctas, .threads = tcatbe_unpack_shared::kThreads, .shared_bytes = sizeof(tcatbe_unpack_shared)};
  return launch_gemm(unpack_tiles, grid, s, launch);
}

cudaError_t launch_tcatbe_pack(int pass, const tcatbe_pack_launch& launch, std::uint32_t ctas,
                               cudaStream_t s) {
  switch (pass) {
    case 0:
      count_exponents<<<ctas, kCtaThreads, 0, s>>>(launch);
      break;
    case 1:
      choose_window<<<1, kCtaThreads, 0, s>>>(launch);
      break;
    case 2:
      count_tiles<<<ctas, kCtaThreads, 0, s>>>(launch);
      break;
    case 3:
      place_tiles<<<1, kTcatbePlaceThreads, 0, s>>>(launch);
      break;
    case 4:
      write_tiles<<<ctas, tcatbe_write_shared::kThreads, 0, s>>>(launch);
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaPeekAtLastError();
}

}  // namespace tersor::cuda
