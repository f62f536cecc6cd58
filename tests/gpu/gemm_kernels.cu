#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "gemm_kernels.hpp"

namespace gpu_test {
namespace {

constexpr unsigned kThreads = 256, kWarp = 32;

__device__ double to_double(std::uint16_t bits, bool half) {
  if (half) return static_cast<double>(__half2float(__ushort_as_half(bits)));
  return static_cast<double>(__uint_as_float(static_cast<unsigned>(bits) << 16));
}

__device__ std::uint64_t first_item() {
  return static_cast<std::uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::uint64_t all_threads() {
  return static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
}

__device__ void note(product_verdict* verdict, unsigned long long place) {
  atomicAdd(&verdict->n_bad, 1ull);
  atomicMin(&verdict->first_bad, place);
}

/// Sum and sum of sizes over the warp's lanes.
__device__ void sum_of(const made_product& p, std::uint64_t token, std::uint64_t row, double& sum,
                       double& size) {
  const unsigned lane = threadIdx.x % kWarp;
  const std::uint16_t* w = p.w + row * p.cols;
  const std::uint16_t* x = p.x + token * p.ldx;
  for (std::uint64_t k = lane; k < p.cols; k += kWarp) {
    const double product = to_double(w[k], p.half) * to_double(x[k], p.half);
    sum += product;
    size += fabs(product);
  }
  for (unsigned step = 1; step < kWarp; step <<= 1) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
    size += __shfl_xor_sync(0xffffffffu, size, step);
  }
}

__global__ void check_product(made_product p, product_verdict* verdict) {
  const unsigned lane = threadIdx.x % kWarp;
  for (std::uint64_t i = first_item() / kWarp; i < p.n * p.rows; i += all_threads() / kWarp) {
    const std::uint64_t token = i / p.rows, row = i % p.rows;
    double sum = 0, size = 0;
    sum_of(p, token, row, sum, size);
    if (p.bias != nullptr) sum += to_double(p.bias[row], p.half);
    if (p.accumulate) sum += to_double(p.y_before[token * p.ldy + row], p.half);
    if (lane != 0) continue;
    const double got = to_double(p.y[token * p.ldy + row], p.half);
    if (!isfinite(sum)) {
      if (isnan(sum) ? !isnan(got) : got != sum) note(verdict, i);
      continue;
    }
    if (p.half && fabs(sum) > 65504) {
      if (fabs(got) < 65504 || (got < 0) != (sum < 0)) note(verdict, i);
      continue;
    }
    const double rounding = p.half ? fabs(sum) / 2048 + 6e-8 : fabs(sum) / 256 + 1e-38;
    const double adding = size / 8388608 * (8 + static_cast<double>(p.cols) / 16);
    const double error = fabs(got - sum) / (rounding + adding);
    if (!(error <= 1)) note(verdict, i);
    // Floats that are not negative are in the order of their bits.
    atomicMax(reinterpret_cast<int*>(&verdict->worst), __float_as_int(static_cast<float>(error)));
  }
}

__global__ void check_one_hot(made_product p, std::uint64_t first_column, product_verdict* verdict) {
  for (std::uint64_t i = first_item(); i < p.n * p.rows; i += all_threads()) {
    const std::uint64_t token = i / p.rows, row = i % p.rows;
    const unsigned want = p.w[row * p.cols + first_column + token], got = p.y[token * p.ldy + row];
    const bool both_zero = ((want | got) & 0x7fffu) == 0;
    if (want != got && !both_zero) note(verdict, i);
  }
}

__global__ void make_one_hot(std::uint16_t* x, std::uint64_t ldx, std::uint64_t cols, std::uint64_t n,
                             std::uint64_t first_column, std::uint16_t one) {
  for (std::uint64_t i = first_item(); i < n * cols; i += all_threads()) {
    const std::uint64_t token = i / cols, col = i % cols;
    x[token * ldx + col] = col == first_column + token ? one : std::uint16_t{0};
  }
}

__global__ void check_untouched(const std::uint16_t* now, const std::uint16_t* before, std::uint64_t n_values,
                                std::uint64_t lead, std::uint64_t ldy, std::uint64_t rows,
                                std::uint64_t n_lines, unsigned long long* counter) {
  for (std::uint64_t i = first_item(); i < n_values; i += all_threads()) {
    const bool is_output = i >= lead && (i - lead) % ldy < rows && (i - lead) / ldy < n_lines;
    if (!is_output && now[i] != before[i]) atomicAdd(counter, 1ull);
  }
}

unsigned blocks_for(std::uint64_t items) {
  const std::uint64_t blocks = (items + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks == 0 ? 1 : blocks < 16384 ? blocks : 16384);
}

}  // namespace

void launch_check_product(const made_product& p, product_verdict* verdict_dev, cudaStream_t stream) {
  check_product<<<blocks_for(p.n * p.rows * kWarp), kThreads, 0, stream>>>(p, verdict_dev);
}
void launch_check_one_hot(const made_product& p, std::uint64_t first_column, product_verdict* verdict_dev,
                          cudaStream_t stream) {
  check_one_hot<<<blocks_for(p.n * p.rows), kThreads, 0, stream>>>(p, first_column, verdict_dev);
}
void launch_make_one_hot(std::uint16_t* x, std::uint64_t ldx, std::uint64_t cols, std::uint64_t n,
                         std::uint64_t first_column, bool half, cudaStream_t stream) {
  make_one_hot<<<blocks_for(n * cols), kThreads, 0, stream>>>(
      x, ldx, cols, n, first_column, half ? std::uint16_t{0x3c00} : std::uint16_t{0x3f80});
}
void launch_check_untouched(const std::uint16_t* now, const std::uint16_t* before, std::uint64_t n_values,
                            std::uint64_t lead, std::uint64_t ldy, std::uint64_t rows, std::uint64_t n_lines,
                            unsigned long long* counter_dev, cudaStream_t stream) {
  check_untouched<<<blocks_for(n_values), kThreads, 0, stream>>>(now, before, n_values, lead, ldy, rows,
                                                                 n_lines, counter_dev);
}

}  // namespace gpu_test
