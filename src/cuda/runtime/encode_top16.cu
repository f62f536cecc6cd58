#include "cuda/codec/encode_kernel.cuh"
#include "cuda/runtime/by_dtype.cuh"
#include "cuda/runtime/launchers.hpp"

namespace tersor::cuda {
namespace {

template <class Lane, class Launch, std::uint32_t kCtas>
__global__ void __launch_bounds__(kCtaThreads, kCtas) encode_top16(const __grid_constant__ Launch launch) {
  extern __shared__ __align__(16) unsigned char memory[];
  encode_cta<top16_encoder<Lane>, Lane>(
      launch, *reinterpret_cast<encode_shared<top16_encoder<Lane>, Lane::kValueBytes>*>(memory));
}

template <std::uint32_t kCtas, class Launch>
cudaError_t launch_any(dtype type, const Launch& launch, std::uint32_t ctas, cudaStream_t s) {
  return by_dtype(type, [&](auto lane) {
    using lane_type = decltype(lane);
    constexpr auto kernel = encode_top16<lane_type, Launch, kCtas>;
    return run_with_memory(kernel, sizeof(encode_shared<top16_encoder<lane_type>, lane_type::kValueBytes>),
                           ctas, s, launch);
  });
}

}  // namespace

cudaError_t launch_encode_top16(dtype type, const tensor_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  if (launch.n_groups == 1) return launch_any<kTop16EncodeCtas>(type, only_group(launch), ctas, s);
  return launch_any<kTop16EncodeCtas>(type, launch, ctas, s);
}
cudaError_t launch_encode_top16(dtype type, const page_launch& launch, std::uint32_t ctas, cudaStream_t s) {
  return launch_any<kPageCtas>(type, launch, ctas, s);
}

}  // namespace tersor::cuda
