// The kernels as functions of the twin's backend, in files of their own because they compile slowly.
#pragma once

#include "cuda/codec/dtypes.cuh"
#include "cuda/runtime/gpu_backend.hpp"
#include "twin_device.hpp"

namespace twin {

using tersor::codec;
using tersor::dtype;
using tersor::cuda::codebook_request;
using tersor::cuda::gpu_error;
using tersor::cuda::one_tensor_launch;
using tersor::cuda::page_launch;
using tersor::cuda::stream;
using tersor::cuda::tensor_launch;

gpu_error encode_tensors(codec c, dtype type, const tensor_launch& launch, std::uint32_t ctas, stream s);
gpu_error encode_pages(codec c, dtype type, const page_launch& launch, std::uint32_t ctas, stream s);
gpu_error decode_tensors(codec c, dtype type, const tensor_launch& launch, std::uint32_t ctas, stream s);
gpu_error decode_pages(codec c, dtype type, const page_launch& launch, std::uint32_t ctas, stream s);

gpu_error copy_tails(const tersor::cuda::tails_launch& launch, std::uint32_t ctas, stream s);
gpu_error recheck(dtype type, const tensor_launch& launch, std::uint32_t raw_words, std::uint32_t ctas,
                  stream s);

gpu_error unpack_matrix(const tersor::cuda::unpack_launch& launch, std::uint32_t ctas, stream s);
gpu_error pack_matrix(int pass, const tersor::cuda::pack_launch& launch, std::uint32_t ctas, stream s);

gpu_error tcatbe_unpack(const tersor::cuda::tcatbe_unpack_launch& launch, std::uint32_t ctas, stream s);
gpu_error tcatbe_pack(int pass, const tersor::cuda::tcatbe_pack_launch& launch, std::uint32_t ctas, stream s);
gpu_error tcatbe_gemm(const tersor::cuda::tcatbe_gemm_launch& launch, stream s);
gpu_error gemm(tersor::cuda::gemm_kernel kernel, dtype type, const tersor::cuda::bulk_gemm_launch& launch,
               tersor::cuda::gemm_tile tile, std::uint32_t groups, stream s);

/// Calls a function with the lane type of a dtype.
template <class Body>
gpu_error by_dtype(dtype type, const Body& body) {
  switch (type) {
    case dtype::bf16:
      return body(tersor::cuda::bf16_lane{});
    case dtype::f16:
      return body(tersor::cuda::f16_lane{});
    case dtype::f8_e4m3:
      return body(tersor::cuda::e4m3_lane{});
    case dtype::f8_e5m2:
      return body(tersor::cuda::e5m2_lane{});
    default:
      return 1;
  }
}

/// Runs `body` with the CTA's shared memory as a `Shared`.
template <class Shared, class Body>
gpu_error run_ctas(std::uint32_t ctas, const Body& body) {
  return device::current()->run(ctas, sizeof(Shared),
                                [&](void* shared) { body(*static_cast<Shared*>(shared)); });
}

}  // namespace twin
