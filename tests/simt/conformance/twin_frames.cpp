#include "cuda/codec/recheck_kernel.cuh"
#include "cuda/codec/tails_kernel.cuh"
#include "twin_backend.hpp"

namespace twin {

gpu_error copy_tails(const tersor::cuda::tails_launch& launch, std::uint32_t ctas, stream) {
  return run_ctas<char>(ctas, [&](char&) { tersor::cuda::copy_tails_cta(launch); });
}

gpu_error recheck(dtype type, const tensor_launch& launch, std::uint32_t raw_words, std::uint32_t ctas,
                  stream) {
  return by_dtype(type, [&](auto lane) {
    using one_lane = decltype(lane);
    using shared = tersor::cuda::recheck_shared<one_lane::kValueBytes>;
    return run_ctas<shared>(ctas,
                            [&](shared& sh) { tersor::cuda::recheck_cta<one_lane>(launch, raw_words, sh); });
  });
}

}  // namespace twin
