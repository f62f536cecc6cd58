// The kernels as plain functions, so that everything above them builds without CUDA.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/codec/launch.hpp"
#include "cuda/codec/tails_launch.hpp"
#include "cuda/gemm/pack_launch.hpp"
#include "cuda/gemm/tcatbe_launch.hpp"
#include <tersor/gemm.hpp>

namespace tersor::cuda {

/// A CUDA error number; 0 is success.
using gpu_error = int;

/// Counts of a group's symbols in the workspace, and where its codebook goes.
struct codebook_request {
  void* counts = nullptr;
  std::uint8_t* books = nullptr;
  std::uint32_t n_entries = 16;
};

/// What src/cuda/runtime/*.cu supply. Every function enqueues on `s` and returns the launch's error.
struct gpu_backend {
  gpu_error (*encode)(codec, dtype, const tensor_launch&, std::uint32_t ctas, stream s);
  gpu_error (*encode_pages)(codec, dtype, const page_launch&, std::uint32_t ctas, stream s);
  gpu_error (*decode)(codec, dtype, const tensor_launch&, std::uint32_t ctas, stream s);
  gpu_error (*decode_pages)(codec, dtype, const page_launch&, std::uint32_t ctas, stream s);
  gpu_error (*order)(const tensor_launch&, std::uint32_t ctas, stream s);
  gpu_error (*order_pages)(const page_launch&, std::uint32_t ctas, stream s);
  gpu_error (*count)(dtype, const one_tensor_launch&, const codebook_request&, std::uint32_t ctas, stream s);
  gpu_error (*count_pages)(dtype, const page_launch&, const codebook_request&, std::uint32_t ctas, stream s);
  gpu_error (*store_overflow)(dtype, const page_launch&, std::uint32_t ctas, stream s);
  gpu_error (*load_overflow)(dtype, const page_launch&, std::uint32_t ctas, stream s);
  gpu_error (*copy_tails)(const tails_launch&, std::uint32_t ctas, stream s);
  /// `raw_words`: of a raw tile's tail.
  gpu_error (*recheck)(dtype, const tensor_launch&, std::uint32_t raw_words, std::uint32_t ctas, stream s);
  gpu_error (*unpack_matrix)(const unpack_launch&, std::uint32_t ctas, stream s);
  gpu_error (*pack_matrix)(int pass, const pack_launch&, std::uint32_t ctas, stream s);
  /// `kernel`: warp_mma, bulk_mma or wgmma; the tile is one that is compiled.
  gpu_error (*gemm)(gemm_kernel kernel, dtype, const bulk_gemm_launch&, gemm_tile, std::uint32_t groups,
                    stream s);
  gpu_error (*tcatbe_gemm)(const tcatbe_gemm_launch&, stream s);
  gpu_error (*tcatbe_unpack)(const tcatbe_unpack_launch&, std::uint32_t ctas, stream s);
  gpu_error (*tcatbe_pack)(int pass, const tcatbe_pack_launch&, std::uint32_t ctas, stream s);
  /// All but `has_library` of the current device.
  gpu_error (*limits)(gemm_device&);
  gpu_error (*clear)(void* data_dev, std::uint64_t n_bytes, stream s);
  /// Multiprocessors of the current device; 0 if there is none.
  std::uint32_t (*multiprocessors)();
  const char* (*error_text)(gpu_error);
  gpu_error (*list)(std::vector<device_info>&);
};

/// Null in a build without CUDA.
[[nodiscard]] const gpu_backend* find_gpu_backend() noexcept;

// CTAs of a multiprocessor that the kernels are compiled for: the launch bounds in *.cu are these, and their
// shared memory fits as often on a Hopper GPU.
inline constexpr std::uint32_t kDecodeCtas = 4;
inline constexpr std::uint32_t kRankEncodeCtas = 3;
inline constexpr std::uint32_t kTop16EncodeCtas = 4;
inline constexpr std::uint32_t kPageCtas = 3;
inline constexpr std::uint32_t kCountCtas = 3;

}  // namespace tersor::cuda
