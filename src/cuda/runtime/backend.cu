// The table of launchers, and what the host asks of the CUDA runtime.
#include <algorithm>

#include <cuda_runtime.h>

#include "cuda/gemm/gemm_launchers.hpp"
#include "cuda/gemm/pack_launchers.hpp"
#include "cuda/gemm/tcatbe_launchers.hpp"
#include "cuda/runtime/launchers.hpp"

namespace tersor::cuda {
namespace {

template <class Launch>
gpu_error encode(codec c, dtype type, const Launch& launch, std::uint32_t ctas, stream s) {
  return c == codec::rank ? launch_encode_rank(type, launch, ctas, s)
                          : launch_encode_top16(type, launch, ctas, s);
}
template <class Launch>
gpu_error decode(codec c, dtype type, const Launch& launch, std::uint32_t ctas, stream s) {
  return c == codec::rank ? launch_decode_rank(type, launch, ctas, s)
                          : launch_decode_top16(type, launch, ctas, s);
}
template <class Launch>
gpu_error order(const Launch& launch, std::uint32_t ctas, stream s) {
  return launch_order(launch, ctas, s);
}
template <class Launch>
gpu_error count(dtype type, const Launch& launch, const codebook_request& to, std::uint32_t ctas, stream s) {
  return launch_count(type, launch, to, ctas, s);
}
gpu_error store_overflow(dtype type, const page_launch& launch, std::uint32_t ctas, stream s) {
  return launch_store_overflow(type, launch, ctas, s);
}
gpu_error load_overflow(dtype type, const page_launch& launch, std::uint32_t ctas, stream s) {
  return launch_load_overflow(type, launch, ctas, s);
}
gpu_error copy_tails(const tails_launch& launch, std::uint32_t ctas, stream s) {
  return launch_copy_tails(launch, ctas, s);
}
gpu_error recheck(dtype type, const tensor_launch& launch, std::uint32_t raw_words, std::uint32_t ctas,
                  stream s) {
  return launch_recheck(type, launch, raw_words, ctas, s);
}
gpu_error unpack_matrix(const unpack_launch& launch, std::uint32_t ctas, stream s) {
  return launch_unpack(launch, ctas, s);
}
gpu_error pack_matrix(int pass, const pack_launch& launch, std::uint32_t ctas, stream s) {
  return launch_pack(pass, launch, ctas, s);
}
gpu_error gemm(gemm_kernel kernel, dtype type, const bulk_gemm_launch& launch, gemm_tile tile,
               std::uint32_t groups, stream s) {
  switch (kernel) {
    case gemm_kernel::warp_mma:
      return launch_warp_gemm(type, launch, tile, groups, s);
    case gemm_kernel::bulk_mma:
      return launch_bulk_gemm(type, launch, tile, groups, s);
    case gemm_kernel::wgmma:
      return launch_group_gemm(type, launch, tile, groups, s);
    default:
      return cudaErrorInvalidValue;
  }
}
gpu_error tcatbe_gemm(const tcatbe_gemm_launch& launch, stream s) {
  return launch_tcatbe_gemm(launch, s);
}
gpu_error tcatbe_unpack(const tcatbe_unpack_launch& launch, std::uint32_t ctas, stream s) {
  return launch_tcatbe_unpack(launch, ctas, s);
}
gpu_error tcatbe_pack(int pass, const tcatbe_pack_launch& launch, std::uint32_t ctas, stream s) {
  return launch_tcatbe_pack(pass, launch, ctas, s);
}
gpu_error clear(void* data, std::uint64_t n_bytes, stream s) {
  return cudaMemsetAsync(data, 0, n_bytes, s);
}

std::uint32_t multiprocessors() {
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    // The error is the caller's to see in the return value, not in a later call.
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  return static_cast<std::uint32_t>(count);
}

gpu_error limits(gemm_device& device) {
  int index = 0, processors = 0, shared = 0;
  cudaError_t error = cudaGetDevice(&index);
  const auto ask = [&](int& value, cudaDeviceAttr what) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, what, index);
  };
  ask(device.compute_major, cudaDevAttrComputeCapabilityMajor);
  ask(device.compute_minor, cudaDevAttrComputeCapabilityMinor);
  ask(processors, cudaDevAttrMultiProcessorCount);
  ask(shared, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  device.multiprocessors = static_cast<std::uint32_t>(processors);
  device.shared_bytes = static_cast<std::uint32_t>(shared);
  return error;
}

const char* error_text(gpu_error error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

gpu_error list(std::vector<device_info>& devices) {
  int n = 0, version = 0;
  cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaSuccess) error = cudaDriverGetVersion(&version);
  for (int i = 0; error == cudaSuccess && i < n; ++i) {
    cudaDeviceProp properties{};
    error = cudaGetDeviceProperties(&properties, i);
    devices.push_back({.index = i,
                       .name = properties.name,
                       .compute_major = properties.major,
                       .compute_minor = properties.minor,
                       .multiprocessors = static_cast<std::uint32_t>(properties.multiProcessorCount),
                       .memory_bytes = properties.totalGlobalMem,
                       .l2_bytes = static_cast<std::uint64_t>(std::max(properties.l2CacheSize, 0)),
                       .driver = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10)});
  }
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  return error;
}

}  // namespace

const gpu_backend& linked_gpu_backend() noexcept;

const gpu_backend& linked_gpu_backend() noexcept {
  static constexpr gpu_backend kBackend = {.encode = encode<tensor_launch>,
                                           .encode_pages = encode<page_launch>,
                                           .decode = decode<tensor_launch>,
                                           .decode_pages = decode<page_launch>,
                                           .order = order<tensor_launch>,
                                           .order_pages = order<page_launch>,
                                           .count = count<one_tensor_launch>,
                                           .count_pages = count<page_launch>,
                                           .store_overflow = store_overflow,
                                           .load_overflow = load_overflow,
                                           .copy_tails = copy_tails,
                                           .recheck = recheck,
                                           .unpack_matrix = unpack_matrix,
                                           .pack_matrix = pack_matrix,
                                           .gemm = gemm,
                                           .tcatbe_gemm = tcatbe_gemm,
                                           .tcatbe_unpack = tcatbe_unpack,
                                           .tcatbe_pack = tcatbe_pack,
                                           .limits = limits,
                                           .clear = clear,
                                           .multiprocessors = multiprocessors,
                                           .error_text = error_text,
                                           .list = list};
  return kBackend;
}

}  // namespace tersor::cuda
