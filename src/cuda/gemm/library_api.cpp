#include "cuda/gemm/library_api.hpp"

#include <cstdlib>
#include <optional>

#include <dlfcn.h>

namespace tersor::cuda {
namespace {

constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                  // Where the toolkit puts it, for loaders that were not told.
                                  "/usr/local/cuda/lib64/libcublasLt.so.13",
                                  "/usr/local/cuda/lib64/libcublasLt.so.12"};

void* open_library() noexcept {
  constexpr int kMode = RTLD_NOW | RTLD_LOCAL;
  // A path that was named is the only one: a typing error should not go unnoticed.
  if (const char* const path = std::getenv("TERSOR_CUBLASLT"); path != nullptr) return ::dlopen(path, kMode);
  for (const char* const name : kNames) {
    if (void* const library = ::dlopen(name, kMode); library != nullptr) return library;
  }
  return nullptr;
}

template <class Function>
bool load(void* library, const char* name, Function& into) noexcept {
  into = reinterpret_cast<Function>(::dlsym(library, name));
  return into != nullptr;
}

std::optional<library_api> open_api() noexcept {
  void* const library = open_library();
  if (library == nullptr) return std::nullopt;
  library_api api;
  const bool complete = load(library, "cublasLtCreate", api.create) &&
                        load(library, "cublasLtDestroy", api.destroy) &&
                        load(library, "cublasLtMatmul", api.matmul) &&
                        load(library, "cublasLtMatmulAlgoGetHeuristic", api.heuristic) &&
                        load(library, "cublasLtMatmulDescCreate", api.descriptor_create) &&
                        load(library, "cublasLtMatmulDescDestroy", api.descriptor_destroy) &&
                        load(library, "cublasLtMatmulDescSetAttribute", api.descriptor_set) &&
                        load(library, "cublasLtMatrixLayoutCreate", api.layout_create) &&
                        load(library, "cublasLtMatrixLayoutDestroy", api.layout_destroy) &&
                        load(library, "cublasLtMatmulPreferenceCreate", api.preference_create) &&
                        load(library, "cublasLtMatmulPreferenceDestroy", api.preference_destroy) &&
                        load(library, "cublasLtMatmulPreferenceSetAttribute", api.preference_set);
  if (!complete) return std::nullopt;
  return api;
}

}  // namespace

const library_api* find_library_api() noexcept {
  // Never closed: handles live as long as the process.
  static const std::optional<library_api> kApi = open_api();
  return kApi ? &*kApi : nullptr;
}

}  // namespace tersor::cuda
