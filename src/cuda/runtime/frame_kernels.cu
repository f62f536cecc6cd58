// Kernels that look at whole frames rather than code values: copying tails, checking decoded values again.
#include "cuda/codec/recheck_kernel.cuh"
#include "cuda/codec/tails_kernel.cuh"
#include "cuda/runtime/by_dtype.cuh"
#include "cuda/runtime/launchers.hpp"

namespace tersor::cuda {
namespace {

__global__ void __launch_bounds__(kCtaThreads) copy_tails(const __grid_constant__ tails_launch launch) {
  copy_tails_cta(launch);
}

template <class Lane>
__global__ void __launch_bounds__(kCtaThreads, kDecodeCtas)
    recheck_values(const __grid_constant__ tensor_launch launch, std::uint32_t raw_words) {
  extern __shared__ __align__(16) unsigned char memory[];
  recheck_cta<Lane>(launch, raw_words, *reinterpret_cast<recheck_shared<Lane::kValueBytes>*>(memory));
}

template <class Lane>
cudaError_t recheck_any(const tensor_launch& launch, std::uint32_t raw_words, std::uint32_t ctas,
                        cudaStream_t s) {
  return run_with_memory(recheck_values<Lane>, sizeof(recheck_shared<Lane::kValueBytes>), ctas, s, launch,
                         raw_words);
}

}  // namespace

cudaError_t launch_copy_tails(const tails_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  copy_tails<<<ctas, kCtaThreads, 0, s>>>(launch);
  return cudaPeekAtLastError();
}

cudaError_t launch_recheck(dtype type, const tensor_launch& launch, std::uint32_t raw_words,
                           std::uint32_t ctas, cudaStream_t s) {
  // A digest is of bytes: only the width of a value matters.
  return value_bytes(type) == 2 ? recheck_any<bf16_lane>(launch, raw_words, ctas, s)
                                : recheck_any<e4m3_lane>(launch, raw_words, ctas, s);
}

}  // namespace tersor::cuda
