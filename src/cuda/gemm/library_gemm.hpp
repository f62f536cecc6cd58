// cuBLASLt, opened at run time: products with plain weights for the kernel `library`, and the benchmark's
// yardstick.
//
// The one exception to "no state between calls": the handle of a device and the algorithms chosen for shapes
// met before stay for the life of the process, behind a mutex (docs/architecture.md).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cuda/runtime/gpu_backend.hpp"

namespace tersor::cuda {

/// Y[n, rows] = X[n, cols] W[rows, cols]^T (+ bias) (+ Y), all row-major and of one dtype (bf16, f16), sums
/// in fp32.
struct library_product {
  dtype type = dtype::bf16;
  std::uint64_t rows = 0, cols = 0, n = 0;
  const void* w_dev = nullptr;  ///< dense
  const void* x_dev = nullptr;
  std::uint64_t ldx = 0;  ///< 0 = dense
  void* y_dev = nullptr;
  std::uint64_t ldy = 0;           ///< 0 = dense
  const void* bias_dev = nullptr;  ///< `rows` values, or null
  bool accumulate = false;
};

/// An algorithm of cuBLASLt for one product and its workspace.
struct library_choice {
  std::array<std::uint64_t, 8> algorithm = {};
  std::uint64_t workspace_bytes = 0;
};

struct library_gemm {
  /// The library for the current device; null if it was not found or there is no device. It is looked for
  /// once in a process: at TERSOR_CUBLASLT if that is set, else as libcublasLt.so.13, then .12, where the
  /// loader and the toolkit have them. The first call for a device makes its handle, which allocates: make it
  /// before capturing a graph (current_gemm_device does).
  [[nodiscard]] static const library_gemm* find() noexcept;

  /// Workspace that `multiply` uses best; less may cost speed.
  static constexpr std::uint64_t kWorkspaceBytes = (std::uint64_t{32} << 20) + 256;
  std::uint64_t workspace_bytes = kWorkspaceBytes;

  /// Enqueues the product with the algorithm that cuBLASLt thinks best. The workspace is 16-byte aligned, its
  /// content does not matter. Returns a CUDA error number (cudaErrorNotSupported if cuBLASLt knows no way).
  [[nodiscard]] gpu_error multiply(const library_product& product, void* ws_dev, std::uint64_t ws_bytes,
                                   stream s) const noexcept;
  [[nodiscard]] gpu_error multiply(dtype type, std::uint64_t rows, std::uint64_t cols, std::uint64_t n,
                                   const void* w_dev, const void* x_dev, std::uint64_t ldx, void* y_dev,
                                   std::uint64_t ldy, const void* bias_dev, bool accumulate, void* ws_dev,
                                   std::uint64_t ws_bytes, stream s) const noexcept {
    return multiply({type, rows, cols, n, w_dev, x_dev, ldx, y_dev, ldy, bias_dev, accumulate}, ws_dev,
                    ws_bytes, s);
  }

  /// Up to `most` algorithms for the product, the best guess first, and the product by one of them.
  [[nodiscard]] std::vector<library_choice> choices(const library_product& product, std::uint64_t ws_bytes,
                                                    int most) const;
  [[nodiscard]] gpu_error multiply(const library_product& product, const library_choice& choice, void* ws_dev,
                                   std::uint64_t ws_bytes, stream s) const noexcept;

 protected:
  library_gemm() = default;
  ~library_gemm() = default;
};

}  // namespace tersor::cuda
