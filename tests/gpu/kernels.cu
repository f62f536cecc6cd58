#include "kernels.hpp"

namespace gpu_test {
namespace {

constexpr unsigned kThreads = 256;

__device__ std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

__device__ std::uint64_t first_item() {
  return static_cast<std::uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ std::uint64_t all_threads() {
  return static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
}

__global__ void count_differences(const unsigned char* a, const unsigned char* b, std::uint64_t n_bytes,
                                  unsigned long long* counter) {
  unsigned long long different = 0;
  for (std::uint64_t i = first_item(); i < n_bytes; i += all_threads()) different += a[i] != b[i] ? 1 : 0;
  if (different != 0) atomicAdd(counter, different);
}

__global__ void busy(std::uint64_t cycles) {
  const long long begin = clock64();
  while (static_cast<std::uint64_t>(clock64() - begin) < cycles) {
  }
}

__global__ void fill_values(unsigned char* dst, std::uint64_t n_values, unsigned value_shift,
                            unsigned exponent_bits, std::uint64_t seed) {
  const unsigned mantissa_bits = (8u << value_shift) - 1 - exponent_bits;
  for (std::uint64_t i = first_item(); i < n_values; i += all_threads()) {
    const std::uint64_t bits = mix(seed + i * 0x9E3779B97F4A7C15u);
    const unsigned top = (3u << exponent_bits) / 4;
    unsigned exponent = top - min(static_cast<unsigned>(__ffsll(static_cast<long long>(bits >> 24))), top);
    if ((bits >> 16 & 0xff) == 0) exponent = static_cast<unsigned>(bits >> 56) & ((1u << exponent_bits) - 1);
    const unsigned mantissa = static_cast<unsigned>(bits) & ((1u << mantissa_bits) - 1);
    const unsigned sign = static_cast<unsigned>(bits >> 12 & 1);
    const unsigned value = sign << (exponent_bits + mantissa_bits) | exponent << mantissa_bits | mantissa;
    if (value_shift == 0) {
      dst[i] = static_cast<unsigned char>(value);
    } else {
      reinterpret_cast<unsigned short*>(dst)[i] = static_cast<unsigned short>(value);
    }
  }
}

unsigned blocks_for(std::uint64_t items) {
  const std::uint64_t blocks = (items + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks == 0 ? 1 : blocks < 4096 ? blocks : 4096);
}

}  // namespace

void launch_count_differences(const void* a_dev, const void* b_dev, std::uint64_t n_bytes,
                              unsigned long long* counter_dev, cudaStream_t stream) {
  count_differences<<<blocks_for(n_bytes), kThreads, 0, stream>>>(static_cast<const unsigned char*>(a_dev),
                                                                  static_cast<const unsigned char*>(b_dev),
                                                                  n_bytes, counter_dev);
}

void launch_busy(std::uint64_t cycles, unsigned blocks, cudaStream_t stream) {
  busy<<<blocks, kThreads, 0, stream>>>(cycles);
}

void launch_fill_values(void* dst_dev, std::uint64_t n_values, unsigned value_shift, unsigned exponent_bits,
                        std::uint64_t seed, cudaStream_t stream) {
  fill_values<<<blocks_for(n_values), kThreads, 0, stream>>>(static_cast<unsigned char*>(dst_dev), n_values,
                                                             value_shift, exponent_bits, seed);
}

}  // namespace gpu_test
