#include <cuda_runtime.h>

#include "gpu_copy.hpp"

namespace tersor::bench {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kUnroll = 4;

__global__ void __launch_bounds__(kThreads)
    copy_words(const uint4* __restrict__ src, uint4* __restrict__ dst, std::uint64_t n_words) {
  constexpr std::uint64_t kBlockWords = std::uint64_t{kThreads} * kUnroll;
  for (std::uint64_t base = blockIdx.x * kBlockWords; base < n_words; base += gridDim.x * kBlockWords) {
    uint4 words[kUnroll];
#pragma unroll
    for (unsigned i = 0; i < kUnroll; ++i) {
      const std::uint64_t at = base + i * kThreads + threadIdx.x;
      if (at < n_words) words[i] = __ldcs(src + at);
    }
#pragma unroll
    for (unsigned i = 0; i < kUnroll; ++i) {
      const std::uint64_t at = base + i * kThreads + threadIdx.x;
      if (at < n_words) __stcs(dst + at, words[i]);
    }
  }
}

}  // namespace

int launch_copy(const void* src_dev, void* dst_dev, std::uint64_t n_words, unsigned multiprocessors,
                CUstream_st* stream) {
  constexpr unsigned kBlocksPerMultiprocessor = 8;
  copy_words<<<multiprocessors * kBlocksPerMultiprocessor, kThreads, 0, stream>>>(
      static_cast<const uint4*>(src_dev), static_cast<uint4*>(dst_dev), n_words);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace tersor::bench
