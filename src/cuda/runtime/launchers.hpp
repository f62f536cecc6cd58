// What the translation units of kernels offer to backend.cu: one pair of functions a codec and direction, so
// that they compile apart.
#pragma once

#include <cuda_runtime.h>

#include "cuda/runtime/gpu_backend.hpp"

namespace tersor::cuda {

cudaError_t launch_encode_rank(dtype, const tensor_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_encode_rank(dtype, const page_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_encode_top16(dtype, const tensor_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_encode_top16(dtype, const page_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_decode_rank(dtype, const tensor_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_decode_rank(dtype, const page_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_decode_top16(dtype, const tensor_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_decode_top16(dtype, const page_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_order(const tensor_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_order(const page_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_count(dtype, const one_tensor_launch&, const codebook_request&, std::uint32_t ctas,
                         cudaStream_t);
cudaError_t launch_count(dtype, const page_launch&, const codebook_request&, std::uint32_t ctas,
                         cudaStream_t);
cudaError_t launch_copy_tails(const tails_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_recheck(dtype, const tensor_launch&, std::uint32_t raw_words, std::uint32_t ctas,
                           cudaStream_t);
cudaError_t launch_store_overflow(dtype, const page_launch&, std::uint32_t ctas, cudaStream_t);
cudaError_t launch_load_overflow(dtype, const page_launch&, std::uint32_t ctas, cudaStream_t);

}  // namespace tersor::cuda
