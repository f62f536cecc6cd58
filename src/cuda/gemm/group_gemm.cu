// Variants of the wgmma kernel.
#include "cuda/gemm/bulk_launch.cuh"

namespace tersor::cuda {
namespace {

template <class Weight, u32 kTokens, u32 kTeams, u32 kTeam>
cudaError_t launch_variant(const bulk_gemm_launch& launch, std::uint32_t groups, cudaStream_t s) {
  return launch_sizes<Weight, bulk_gemm_sizes<Weight, kTokens, kTeams, kTeam, true>>(launch, groups, s);
}

template <class Weight>
cudaError_t launch_tile(const bulk_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                        cudaStream_t s) {
  if (tile == gemm_tile{32, 4}) return launch_variant<Weight, 32, 4, 3>(launch, groups, s);
  if (tile == gemm_tile{64, 4}) return launch_variant<Weight, 64, 4, 3>(launch, groups, s);
  if (tile == gemm_tile{128, 4}) return launch_variant<Weight, 128, 4, 2>(launch, groups, s);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_group_gemm(dtype type, const bulk_gemm_launch& launch, gemm_tile tile,
                              std::uint32_t groups, cudaStream_t s) {
  return type == dtype::f16 ? launch_tile<f16_weight>(launch, tile, groups, s)
                            : launch_tile<bf16_weight>(launch, tile, groups, s);
}

}  // namespace tersor::cuda
