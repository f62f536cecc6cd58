#include "cuda/codec/histogram_kernel.cuh"
#include "cuda/codec/order_kernel.cuh"
#include "cuda/kv/raw_pages.cuh"
#include "cuda/runtime/by_dtype.cuh"
#include "cuda/runtime/launchers.hpp"

namespace tersor::cuda {
namespace {

template <class Launch>
__global__ void __launch_bounds__(kCtaThreads) order_tails(const __grid_constant__ Launch launch) {
  __shared__ order_shared shared;
  order_cta(launch, shared);
}

template <class Lane, class Launch>
__global__ void __launch_bounds__(kCtaThreads)
    count_symbols(const __grid_constant__ Launch launch, const codebook_target target) {
  extern __shared__ __align__(16) unsigned char memory[];
  histogram_cta_of<Lane>(launch, target, *reinterpret_cast<histogram_shared<Lane::kValueBytes>*>(memory));
}

template <class Lane>
__global__ void __launch_bounds__(kCtaThreads) store_overflow(const __grid_constant__ page_launch launch) {
  __shared__ raw_shared shared;
  store_overflow_cta<Lane>(launch, shared);
}

template <class Lane>
__global__ void __launch_bounds__(kCtaThreads) load_overflow(const __grid_constant__ page_launch launch) {
  __shared__ raw_shared shared;
  load_overflow_cta<Lane>(launch, shared);
}

template <class Launch>
cudaError_t count_any(dtype type, const Launch& launch, const codebook_request& to, std::uint32_t ctas,
                      cudaStream_t s) {
  const codebook_target target{static_cast<symbol_counts*>(to.counts), to.books, to.n_entries};
  return by_dtype(type, [&](auto lane) {
    using lane_type = decltype(lane);
    constexpr auto kernel = count_symbols<lane_type, Launch>;
    return run_with_memory(kernel, sizeof(histogram_shared<lane_type::kValueBytes>), ctas, s, launch, target);
  });
}

}  // namespace

cudaError_t launch_order(const tensor_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  order_tails<tensor_launch><<<ctas, kCtaThreads, 0, s>>>(launch);
  return cudaPeekAtLastError();
}
cudaError_t launch_order(const page_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  order_tails<page_launch><<<ctas, kCtaThreads, 0, s>>>(launch);
  return cudaPeekAtLastError();
}

cudaError_t launch_count(dtype type, const one_tensor_launch& launch, const codebook_request& to,
                         std::uint32_t ctas, cudaStream_t s) {
  return count_any(type, launch, to, ctas, s);
}
cudaError_t launch_count(dtype type, const page_launch& launch, const codebook_request& to,
                         std::uint32_t ctas, cudaStream_t s) {
  return count_any(type, launch, to, ctas, s);
}

cudaError_t launch_store_overflow(dtype type, const page_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  return by_dtype(type, [&](auto lane) {
    store_overflow<decltype(lane)><<<ctas, kCtaThreads, 0, s>>>(launch);
    return cudaPeekAtLastError();
  });
}
cudaError_t launch_load_overflow(dtype type, const page_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  return by_dtype(type, [&](auto lane) {
    load_overflow<decltype(lane)><<<ctas, kCtaThreads, 0, s>>>(launch);
    return cudaPeekAtLastError();
  });
}

}  // namespace tersor::cuda
