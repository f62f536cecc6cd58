// The GEMM kernels as functions of the twin's backend; tiles as src/cuda/gemm/{warp,bulk,group}_gemm.cu
// choose them.
#include <cstring>

#include "cuda/gemm/bulk_gemm.cuh"
#include "cuda/gemm/tcatbe_gemm.cuh"
#include "cuda/gemm/warp_gemm.cuh"
#include "twin_backend.hpp"

namespace twin {
namespace {

using namespace tersor::cuda;

constexpr std::uint32_t kSharedBytes = 227 * 1024;
constexpr gpu_error kNotCompiled = 2;

template <class Weight, class Sizes>
gpu_error run_bulk(const bulk_gemm_launch& planned, std::uint32_t groups) {
  bulk_gemm_launch launch = planned;
  launch.stages = Sizes::stages(launch.sections.block_bytes, kSharedBytes);
  if (launch.stages == 0) return kNotCompiled;
  const simt::tensor_map x{.base = reinterpret_cast<const std::byte*>(launch.op.x),
                           .cols = launch.op.cols,
                           .rows = launch.x_rows,
                           .stride_bytes = 2 * launch.op.ldx,
                           .box_rows = Sizes::kTokens};
  std::memcpy(launch.x_map, &x, sizeof x);
  const std::uint32_t row = launch.ctas * launch.split_k;
  return device::current()->run(
      {.n_ctas = row * groups,
       .row_ctas = row,
       .cluster = launch.split_k,
       .n_threads = Sizes::kThreads,
       .shared_bytes = Sizes::bytes(launch.stages, launch.sections.block_bytes)},
      [&](void* at) { bulk_gemm_cta<Weight, Sizes>(launch, static_cast<u8*>(at)); });
}

template <class Weight>
gpu_error run_bulk_tile(const bulk_gemm_launch& launch, gemm_tile tile, std::uint32_t groups) {
  if (tile == gemm_tile{8, 2}) return run_bulk<Weight, bulk_gemm_sizes<Weight, 8, 2, 8>>(launch, groups);
  if (tile == gemm_tile{8, 3}) return run_bulk<Weight, bulk_gemm_sizes<Weight, 8, 3, 4>>(launch, groups);
  if (tile == gemm_tile{8, 4}) return run_bulk<Weight, bulk_gemm_sizes<Weight, 8, 4, 4>>(launch, groups);
  if (tile == gemm_tile{16, 2}) return run_bulk<Weight, bulk_gemm_sizes<Weight, 16, 2, 6>>(launch, groups);
  if (tile == gemm_tile{16, 4}) return run_bulk<Weight, bulk_gemm_sizes<Weight, 16, 4, 4>>(launch, groups);
  if (tile == gemm_tile{32, 3}) return run_bulk<Weight, bulk_gemm_sizes<Weight, 32, 3, 4>>(launch, groups);
  return kNotCompiled;
}

template <class Weight>
gpu_error run_group_tile(const bulk_gemm_launch& launch, gemm_tile tile, std::uint32_t groups) {
  if (tile == gemm_tile{32, 4})
    return run_bulk<Weight, bulk_gemm_sizes<Weight, 32, 4, 3, true>>(launch, groups);
  if (tile == gemm_tile{64, 4})
    return run_bulk<Weight, bulk_gemm_sizes<Weight, 64, 4, 3, true>>(launch, groups);
  if (tile == gemm_tile{128, 4})
    return run_bulk<Weight, bulk_gemm_sizes<Weight, 128, 4, 2, true>>(launch, groups);
  return kNotCompiled;
}

template <class Weight, u32 kTokens, u32 kRowBlocks, u32 kWarpsOfCta>
gpu_error run_warp(const warp_gemm_launch& launch, std::uint32_t groups) {
  using sizes = warp_gemm_sizes<Weight, kTokens, kRowBlocks, kWarpsOfCta>;
  return device::current()->run(
      {.n_ctas = launch.ctas * groups,
       .row_ctas = launch.ctas,
       .n_threads = sizes::kThreads,
       .shared_bytes = sizes::kBytes},
      [&](void* at) { warp_gemm_cta<Weight, sizes>(launch, static_cast<u8*>(at)); });
}

template <class Weight>
gpu_error run_warp_tile(const warp_gemm_launch& launch, gemm_tile tile, std::uint32_t groups) {
  if (tile == gemm_tile{8, 2}) return run_warp<Weight, 8, 2, 6>(launch, groups);
  if (tile == gemm_tile{8, 4}) return run_warp<Weight, 8, 4, 6>(launch, groups);
  if (tile == gemm_tile{16, 2}) return run_warp<Weight, 16, 2, 4>(launch, groups);
  if (tile == gemm_tile{32, 2}) return run_warp<Weight, 32, 2, 3>(launch, groups);
  return kNotCompiled;
}

template <class Weight>
gpu_error run_kernel(gemm_kernel kernel, const bulk_gemm_launch& launch, gemm_tile tile,
                     std::uint32_t groups) {
  if (kernel == gemm_kernel::warp_mma) return run_warp_tile<Weight>(launch, tile, groups);
  if (kernel == gemm_kernel::bulk_mma) return run_bulk_tile<Weight>(launch, tile, groups);
  return run_group_tile<Weight>(launch, tile, groups);
}

template <u32 kTokens>
gpu_error run_tcatbe(const tcatbe_gemm_launch& launch) {
  using sizes = tcatbe_gemm_sizes<kTokens>;
  const gpu_error error = device::current()->run(
      {.n_ctas = launch.ctas, .n_threads = sizes::kThreads, .shared_bytes = sizes::kBytes},
      [&](void* at) { tcatbe_gemm_cta<sizes>(launch, static_cast<u8*>(at)); });
  if (error != 0) return error;
  return device::current()->run(
      {.n_ctas = launch.matrix.row_tiles, .n_threads = kTcatbeSumThreads, .shared_bytes = 16},
      [&](void*) { tcatbe_sum_cta(launch); });
}

}  // namespace

gpu_error gemm(gemm_kernel kernel, dtype type, const bulk_gemm_launch& launch, gemm_tile tile,
               std::uint32_t groups, stream) {
  return type == dtype::f16 ? run_kernel<f16_weight>(kernel, launch, tile, groups)
                            : run_kernel<bf16_weight>(kernel, launch, tile, groups);
}

gpu_error tcatbe_gemm(const tcatbe_gemm_launch& launch, stream) {
  switch (launch.n_tile) {
    case 8:
      return run_tcatbe<8>(launch);
    case 16:
      return run_tcatbe<16>(launch);
    case 32:
      return run_tcatbe<32>(launch);
    case 64:
      return run_tcatbe<64>(launch);
    case 128:
      return run_tcatbe<128>(launch);
    default:
      return kNotCompiled;
  }
}

}  // namespace twin
