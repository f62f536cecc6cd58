// Variants of the bulk_mma kernel.
#include "cuda/gemm/bulk_launch.cuh"

namespace tersor::cuda {
namespace {

template <class Weight, u32 kTokens, u32 kTeams, u32 kTeam>
cudaError_t launch_variant(const bulk_gemm_launch& launch, std::uint32_t groups, cudaStream_t s) {
  return launch_sizes<Weight, bulk_gemm_sizes<Weight, kTokens, kTeams, kTeam>>(launch, groups, s);
}

template <class Weight>
cudaError_t launch_tile(const bulk_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                        cudaStream_t s) {
  if (tile == gemm_tile{8, 2}) return launch_variant<Weight, 8, 2, 8>(launch, groups, s);
  if (tile == gemm_tile{8, 3}) return launch_variant<Weight, 8, 3, 4>(launch, groups, s);
  if (tile == gemm_tile{8, 4}) return launch_variant<Weight, 8, 4, 4>(launch, groups, s);
  if (tile == gemm_tile{16, 2}) return launch_variant<Weight, 16, 2, 6>(launch, groups, s);
  if (tile == gemm_tile{16, 4}) return launch_variant<Weight, 16, 4, 4>(launch, groups, s);
  if (tile == gemm_tile{32, 3}) return launch_variant<Weight, 32, 3, 4>(launch, groups, s);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_bulk_gemm(dtype type, const bulk_gemm_launch& launch, gemm_tile tile, std::uint32_t groups,
                             cudaStream_t s) {
  return type == dtype::f16 ? launch_tile<f16_weight>(launch, tile, groups, s)
                            : launch_tile<bf16_weight>(launch, tile, groups, s);
}

}  // namespace tersor::cuda
