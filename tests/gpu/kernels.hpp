// Small kernels that the tests need beside the library's own.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace gpu_test {

/// Adds the number of bytes that differ to `*counter_dev`.
void launch_count_differences(const void* a_dev, const void* b_dev, std::uint64_t n_bytes,
                              unsigned long long* counter_dev, cudaStream_t stream);

/// Keeps `blocks` blocks of 256 threads at work for about `cycles` cycles.
void launch_busy(std::uint64_t cycles, unsigned blocks, cudaStream_t stream);

/// Values of `1 << value_shift` bytes whose `exponent_bits` exponents are mostly near the upper middle of
/// their range; each depends on its own 64-bit index, so that a value at a wrong place shows.
void launch_fill_values(void* dst_dev, std::uint64_t n_values, unsigned value_shift, unsigned exponent_bits,
                        std::uint64_t seed, cudaStream_t stream);

}  // namespace gpu_test
