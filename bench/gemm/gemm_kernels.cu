#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "gemm_kernels.hpp"

namespace tersor::bench {
namespace {

constexpr unsigned kThreads = 256;

using u64 = std::uint64_t;

__device__ u64 mix(u64 z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// A normal value that depends on `salt` and `i` alone (Box and Muller).
__device__ float normal(u64 salt, u64 i) {
  const u64 bits = mix((i + 1) * 0x9e3779b97f4a7c15 + mix(salt));
  const float u = (static_cast<float>(bits >> 40) + 1.0f) * 0x1p-24f;
  const float v = static_cast<float>(bits & 0xffffff) * 0x1p-24f;
  return sqrtf(-2.0f * logf(u)) * cospif(2.0f * v);
}

template <class Value>
__device__ Value rounded(float value);
template <>
__device__ __nv_bfloat16 rounded<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __half rounded<__half>(float value) {
  return __float2half_rn(value);
}
__device__ float as_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
__device__ float as_float(__half value) {
  return __half2float(value);
}

__device__ u64 first_index() {
  return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ u64 index_step() {
  return static_cast<u64>(gridDim.x) * blockDim.x;
}

template <class Value>
__global__ void make_weights(Value* dst, u64 rows, u64 cols) {
  for (u64 i = first_index(); i < rows * cols; i += index_step()) {
    const float scale = 0.02f * expf(0.25f * normal(2, i / cols));
    dst[i] = rounded<Value>(scale * normal(1, i));
  }
}

template <class Value>
__global__ void make_tokens(Value* dst, u64 n) {
  for (u64 i = first_index(); i < n; i += index_step()) dst[i] = rounded<Value>(normal(3, i));
}

__device__ void add_count(u64 mine, u64* count) {
  if (mine != 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(count), static_cast<unsigned long long>(mine));
}

__global__ void count_differences(const std::uint16_t* a, const std::uint16_t* b, u64 n, u64* count) {
  u64 mine = 0;
  for (u64 i = first_index(); i < n; i += index_step()) mine += a[i] != b[i] ? 1 : 0;
  add_count(mine, count);
}

__global__ void count_not_finite(const std::uint16_t* values, std::uint16_t exponent, u64 n, u64* count) {
  u64 mine = 0;
  for (u64 i = first_index(); i < n; i += index_step()) mine += (values[i] & exponent) == exponent ? 1 : 0;
  add_count(mine, count);
}

/// A CTA makes the outputs of one row for some tokens.
constexpr unsigned kTokens = 8;
template <class Value>
__global__ void __launch_bounds__(kThreads)
    reference(gemm_sample sample, const Value* __restrict__ w, const Value* __restrict__ x, double* out) {
  __shared__ double parts[kTokens][kThreads / 32];
  const u64 index = blockIdx.x, first = static_cast<u64>(blockIdx.y) * kTokens;
  const Value* const weights = w + sample.rows_dev[index] * sample.cols;
  double sums[kTokens] = {};
  for (u64 k = threadIdx.x; k < sample.cols; k += kThreads) {
    const double weight = as_float(weights[k]);
#pragma unroll
    for (unsigned t = 0; t < kTokens; ++t) {
      if (first + t < sample.n)
        sums[t] += weight * static_cast<double>(as_float(x[(first + t) * sample.cols + k]));
    }
  }
#pragma unroll
  for (unsigned t = 0; t < kTokens; ++t) {
    for (unsigned step = 16; step != 0; step /= 2) sums[t] += __shfl_xor_sync(0xffffffff, sums[t], step);
    if (threadIdx.x % 32 == 0) parts[t][threadIdx.x / 32] = sums[t];
  }
  __syncthreads();
  if (threadIdx.x >= kTokens || first + threadIdx.x >= sample.n) return;
  double sum = 0;
  for (unsigned warp = 0; warp < kThreads / 32; ++warp) sum += parts[threadIdx.x][warp];
  out[index * sample.n + first + threadIdx.x] = sum;
}

template <class Value>
__global__ void gather(gemm_sample sample, const Value* y, double* out) {
  for (u64 i = first_index(); i < sample.n_rows * sample.n; i += index_step()) {
    out[i] = as_float(y[i % sample.n * sample.rows + sample.rows_dev[i / sample.n]]);
  }
}

unsigned ctas_for(u64 n) {
  constexpr u64 kMost = 132 * 16;
  const u64 ctas = (n + kThreads - 1) / kThreads;
  return static_cast<unsigned>(ctas < 1 ? 1 : ctas > kMost ? kMost : ctas);
}

/// Calls `launch` with a null pointer of the dtype's C++ type.
template <class Launch>
int by_type(dtype type, const Launch& launch) {
  if (type == dtype::f16) {
    launch(static_cast<__half*>(nullptr));
  } else {
    launch(static_cast<__nv_bfloat16*>(nullptr));
  }
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch_make_weights(dtype type, void* dst_dev, std::uint64_t rows, std::uint64_t cols,
                        CUstream_st* stream) {
  return by_type(type, [&](auto* value) {
    make_weights<<<ctas_for(rows * cols), kThreads, 0, stream>>>(static_cast<decltype(value)>(dst_dev), rows,
                                                                 cols);
  });
}

int launch_make_tokens(dtype type, void* dst_dev, std::uint64_t n_values, CUstream_st* stream) {
  return by_type(type, [&](auto* value) {
    make_tokens<<<ctas_for(n_values), kThreads, 0, stream>>>(static_cast<decltype(value)>(dst_dev), n_values);
  });
}

int launch_count_differences(const void* a_dev, const void* b_dev, std::uint64_t n_values,
                             std::uint64_t* count_dev, CUstream_st* stream) {
  count_differences<<<ctas_for(n_values), kThreads, 0, stream>>>(static_cast<const std::uint16_t*>(a_dev),
                                                                 static_cast<const std::uint16_t*>(b_dev),
                                                                 n_values, count_dev);
  return static_cast<int>(cudaGetLastError());
}

int launch_count_not_finite(dtype type, const void* values_dev, std::uint64_t n_values,
                            std::uint64_t* count_dev, CUstream_st* stream) {
  const std::uint16_t exponent = type == dtype::f16 ? 0x7c00 : 0x7f80;
  count_not_finite<<<ctas_for(n_values), kThreads, 0, stream>>>(static_cast<const std::uint16_t*>(values_dev),
                                                                exponent, n_values, count_dev);
  return static_cast<int>(cudaGetLastError());
}

int launch_reference(const gemm_sample& sample, const void* w_dev, const void* x_dev, double* out_dev,
                     CUstream_st* stream) {
  const dim3 grid(static_cast<unsigned>(sample.n_rows),
                  static_cast<unsigned>((sample.n + kTokens - 1) / kTokens));
  return by_type(sample.type, [&](auto* value) {
    using pointer = decltype(value);
    reference<<<grid, kThreads, 0, stream>>>(
        sample, static_cast<const std::remove_pointer_t<pointer>*>(w_dev),
        static_cast<const std::remove_pointer_t<pointer>*>(x_dev), out_dev);
  });
}

int launch_gather(const gemm_sample& sample, const void* y_dev, double* out_dev, CUstream_st* stream) {
  return by_type(sample.type, [&](auto* value) {
    using pointer = decltype(value);
    gather<<<ctas_for(sample.n_rows * sample.n), kThreads, 0, stream>>>(
        sample, static_cast<const std::remove_pointer_t<pointer>*>(y_dev), out_dev);
  });
}

}  // namespace tersor::bench
