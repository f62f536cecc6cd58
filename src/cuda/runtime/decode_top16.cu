#include "cuda/codec/decode_kernel.cuh"
#include "cuda/runtime/by_dtype.cuh"
#include "cuda/runtime/launchers.hpp"

namespace tersor::cuda {
namespace {

template <class Lane, class Launch, std::uint32_t kCtas>
__global__ void __launch_bounds__(kCtaThreads, kCtas) decode_top16(const __grid_constant__ Launch launch) {
  extern __shared__ __align__(128) unsigned char memory[];
  decode_cta<top16_decoder<Lane>, Lane>(
      launch, *reinterpret_cast<decode_shared<top16_decoder<Lane>, Lane::kValueBytes>*>(memory));
}

template <std::uint32_t kCtas, class Launch>
cudaError_t launch_any(dtype type, const Launch& launch, std::uint32_t ctas, cudaStream_t s) {
  return by_dtype(type, [&](auto lane) {
    using lane_type = decltype(lane);
    constexpr auto kernel = decode_top16<lane_type, Launch, kCtas>;
    return run_with_memory(kernel, sizeof(decode_shared<top16_decoder<lane_type>, lane_type::kValueBytes>),
                           ctas, s, launch);
  });
}

}  // namespace

cudaError_t launch_decode_top16(dtype type, const tensor_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  if (launch.n_groups == 1) return launch_any<kDecodeCtas>(type, only_group(launch), ctas, s);
  return launch_any<kDecodeCtas>(type, launch, ctas, s);
}
cudaError_t launch_decode_top16(dtype type, const page_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  return launch_any<kPageCtas>(type, launch, ctas, s);
}

}  // namespace tersor::cuda
