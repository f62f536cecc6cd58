#include "cuda/gemm/pack_kernels.cuh"
#include "cuda/gemm/pack_launchers.hpp"
#include "cuda/gemm/unpack_kernel.cuh"
#include "cuda/runtime/by_dtype.cuh"

namespace tersor::cuda {
namespace {

template <class Weight>
__global__ void __launch_bounds__(kCtaThreads, kUnpackCtas)
    unpack(const __grid_constant__ unpack_launch launch) {
  extern __shared__ __align__(16) unsigned char memory[];
  unpack_cta<Weight>(launch, *reinterpret_cast<unpack_shared<Weight>*>(memory));
}

__global__ void begin(const __grid_constant__ unpack_launch launch) {
  begin_unpack(launch);
}

template <class Fields>
__global__ void __launch_bounds__(kCtaThreads, kPackCtas)
    pack_blocks(const __grid_constant__ pack_launch launch) {
  __shared__ pack_shared shared;
  pack_blocks_cta<Fields>(launch, shared);
}

__global__ void __launch_bounds__(kCtaThreads) place_overflow(const __grid_constant__ pack_launch launch) {
  __shared__ place_shared shared;
  place_overflow_cta(launch, shared);
}

template <class Fields>
__global__ void __launch_bounds__(kCtaThreads, kPackCtas)
    finish_pack(const __grid_constant__ pack_launch launch) {
  __shared__ finish_shared shared;
  finish_pack_cta<Fields>(launch, shared);
}

}  // namespace

cudaError_t launch_unpack(const unpack_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  if (launch.result != nullptr) begin<<<1, 32, 0, s>>>(launch);
  if (launch.half)
    return run_with_memory(unpack<f16_weight>, sizeof(unpack_shared<f16_weight>), ctas, s, launch);
  return run_with_memory(unpack<bf16_weight>, sizeof(unpack_shared<bf16_weight>), ctas, s, launch);
}

cudaError_t launch_pack(int pass, const pack_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  using half = weight_fields<true>;
  using bf16 = weight_fields<false>;
  if (pass == 0) {
    launch.half ? pack_blocks<half><<<ctas, kCtaThreads, 0, s>>>(launch)
                : pack_blocks<bf16><<<ctas, kCtaThreads, 0, s>>>(launch);
  } else if (pass == 1) {
    place_overflow<<<ctas, kCtaThreads, 0, s>>>(launch);
  } else {
    launch.half ? finish_pack<half><<<ctas, kCtaThreads, 0, s>>>(launch)
                : finish_pack<bf16><<<ctas, kCtaThreads, 0, s>>>(launch);
  }
  return cudaPeekAtLastError();
}

}  // namespace tersor::cuda
