#include <cuda_runtime.h>

#include "gpu_link_kernels.hpp"

namespace tersor::bench {
namespace {

constexpr unsigned kThreads = 256, kBlocks = 132 * 8;

__device__ std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

__global__ void fill_kv(const std::uint16_t* base, std::uint64_t n_base, std::uint16_t* dst, std::uint64_t n,
                        std::uint64_t salt) {
  const std::uint64_t step = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  for (std::uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::uint64_t copy = i / n_base + salt * 977;
    const std::uint16_t value = base[(i + copy * 37) % n_base];
    const auto noise = static_cast<std::uint16_t>(mix(i * 0x9e3779b97f4a7c15 + salt) & 3);
    // A zero stays one.
    dst[i] = (value & 0x7fff) == 0 ? value : static_cast<std::uint16_t>(value ^ noise);
  }
}

__global__ void count_different(const std::uint32_t* a, const std::uint32_t* b, std::uint64_t n_words,
                                unsigned long long* count) {
  const std::uint64_t step = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  unsigned long long mine = 0;
  for (std::uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n_words; i += step)
    mine += a[i] != b[i] ? 1 : 0;
  if (mine != 0) atomicAdd(count, mine);
}

}  // namespace

int launch_fill_kv(const std::uint16_t* base, std::uint64_t n_base, std::uint16_t* dst, std::uint64_t n,
                   std::uint64_t salt, CUstream_st* s) {
  fill_kv<<<kBlocks, kThreads, 0, s>>>(base, n_base, dst, n, salt);
  return static_cast<int>(cudaGetLastError());
}

int launch_count_different(const std::uint32_t* a, const std::uint32_t* b, std::uint64_t n_words,
                           unsigned long long* count, CUstream_st* s) {
  count_different<<<kBlocks, kThreads, 0, s>>>(a, b, n_words, count);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace tersor::bench
