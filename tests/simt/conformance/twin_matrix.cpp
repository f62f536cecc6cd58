#include "cuda/gemm/pack_kernels.cuh"
#include "cuda/gemm/unpack_kernel.cuh"
#include "twin_backend.hpp"

namespace twin {
namespace {

template <class Weight>
gpu_error run_unpack(const tersor::cuda::unpack_launch& launch, std::uint32_t ctas) {
  using shared = tersor::cuda::unpack_shared<Weight>;
  return run_ctas<shared>(ctas, [&](shared& sh) { tersor::cuda::unpack_cta<Weight>(launch, sh); });
}

template <class Fields>
gpu_error run_pack(int pass, const tersor::cuda::pack_launch& launch, std::uint32_t ctas) {
  using tersor::cuda::finish_shared;
  using tersor::cuda::pack_shared;
  using tersor::cuda::place_shared;
  if (pass == 0) {
    return run_ctas<pack_shared>(ctas,
                                 [&](pack_shared& sh) { tersor::cuda::pack_blocks_cta<Fields>(launch, sh); });
  }
  if (pass == 1)
    return run_ctas<place_shared>(ctas,
                                  [&](place_shared& sh) { tersor::cuda::place_overflow_cta(launch, sh); });
  return run_ctas<finish_shared>(
      ctas, [&](finish_shared& sh) { tersor::cuda::finish_pack_cta<Fields>(launch, sh); });
}

}  // namespace

gpu_error unpack_matrix(const tersor::cuda::unpack_launch& launch, std::uint32_t ctas, stream) {
  // As src/cuda/gemm/pack_unpack.cu does.
  if (launch.result != nullptr) {
    struct nothing {
      std::byte unused[16];
    };
    const gpu_error error = run_ctas<nothing>(1, [&](nothing&) { tersor::cuda::begin_unpack(launch); });
    if (error != 0) return error;
  }
  return launch.half ? run_unpack<tersor::cuda::f16_weight>(launch, ctas)
                     : run_unpack<tersor::cuda::bf16_weight>(launch, ctas);
}

gpu_error pack_matrix(int pass, const tersor::cuda::pack_launch& launch, std::uint32_t ctas, stream) {
  return launch.half ? run_pack<tersor::cuda::weight_fields<true>>(pass, launch, ctas)
                     : run_pack<tersor::cuda::weight_fields<false>>(pass, launch, ctas);
}

}  // namespace twin
