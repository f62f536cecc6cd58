#include "cuda/codec/decode_kernel.cuh"
#include "twin_backend.hpp"

namespace twin {
namespace {

template <class Codec, class Lane, class Launch>
gpu_error run_decode(const Launch& launch, std::uint32_t ctas) {
  using shared = tersor::cuda::decode_shared<Codec, Lane::kValueBytes>;
  return run_ctas<shared>(ctas, [&](shared& sh) { tersor::cuda::decode_cta<Codec, Lane>(launch, sh); });
}

template <class Launch>
gpu_error decode_any(codec c, dtype type, const Launch& launch, std::uint32_t ctas) {
  return by_dtype(type, [&](auto lane) {
    using one_lane = decltype(lane);
    return c == codec::rank ? run_decode<tersor::cuda::rank_decoder<one_lane>, one_lane>(launch, ctas)
                            : run_decode<tersor::cuda::top16_decoder<one_lane>, one_lane>(launch, ctas);
  });
}

}  // namespace

gpu_error decode_tensors(codec c, dtype type, const tensor_launch& launch, std::uint32_t ctas, stream) {
  // As src/cuda/runtime/decode_rank.cu chooses.
  if (launch.n_groups == 1) return decode_any(c, type, tersor::cuda::only_group(launch), ctas);
  return decode_any(c, type, launch, ctas);
}
gpu_error decode_pages(codec c, dtype type, const page_launch& launch, std::uint32_t ctas, stream) {
  return decode_any(c, type, launch, ctas);
}

}  // namespace twin
