// The functions of cuBLASLt that are called, found by name in the library of this machine.
#pragma once

#include <cublasLt.h>

namespace tersor::cuda {

struct library_api {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) descriptor_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) descriptor_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) descriptor_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
};

/// Null if the library or one of the functions is not there. Looked for once in a process.
[[nodiscard]] const library_api* find_library_api() noexcept;

}  // namespace tersor::cuda
