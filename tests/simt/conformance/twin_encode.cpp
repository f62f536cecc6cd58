#include "cuda/codec/encode_kernel.cuh"
#include "twin_backend.hpp"

namespace twin {
namespace {

template <class Codec, class Lane, class Launch>
gpu_error run_encode(const Launch& launch, std::uint32_t ctas) {
  using shared = tersor::cuda::encode_shared<Codec, Lane::kValueBytes>;
  return run_ctas<shared>(ctas, [&](shared& sh) { tersor::cuda::encode_cta<Codec, Lane>(launch, sh); });
}

template <class Launch>
gpu_error encode_any(codec c, dtype type, const Launch& launch, std::uint32_t ctas) {
  return by_dtype(type, [&](auto lane) {
    using one_lane = decltype(lane);
    return c == codec::rank ? run_encode<tersor::cuda::rank_encoder<one_lane>, one_lane>(launch, ctas)
                            : run_encode<tersor::cuda::top16_encoder<one_lane>, one_lane>(launch, ctas);
  });
}

}  // namespace

gpu_error encode_tensors(codec c, dtype type, const tensor_launch& launch, std::uint32_t ctas, stream) {
  // As src/cuda/runtime/encode_rank.cu chooses.
  if (launch.n_groups == 1) return encode_any(c, type, tersor::cuda::only_group(launch), ctas);
  return encode_any(c, type, launch, ctas);
}
gpu_error encode_pages(codec c, dtype type, const page_launch& launch, std::uint32_t ctas, stream) {
  return encode_any(c, type, launch, ctas);
}

}  // namespace twin
