#include "cuda/gemm/library_gemm.hpp"

#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>

#include <cuda_runtime_api.h>

#include "core/checked.hpp"
#include "cuda/gemm/library_api.hpp"

namespace tersor::cuda {
namespace {

static_assert(sizeof(library_choice::algorithm) == sizeof(cublasLtMatmulAlgo_t));

gpu_error error_of(cublasStatus_t status) noexcept {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return cudaErrorNotSupported;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_INVALID_VALUE:
      return cudaErrorInvalidValue;
    default:
      return cudaErrorLaunchFailure;
  }
}

std::uint32_t alignment_of(const void* address) noexcept {
  constexpr std::uintptr_t kMost = 256;
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | kMost;
  return std::uint32_t{1} << std::countr_zero(bits);
}

/// All that the choice of an algorithm depends on.
struct cache_key {
  std::uint64_t rows = 0, cols = 0, n = 0, ldx = 0, ldy = 0, ws_bytes = 0;
  std::uint32_t w_alignment = 0, x_alignment = 0, y_alignment = 0, bias_alignment = 0;
  dtype type = dtype::bf16;
  bool accumulate = false;
  [[nodiscard]] bool operator==(const cache_key&) const noexcept = default;
};

cache_key key_of(const library_product& p, std::uint64_t ws_bytes) noexcept {
  return {p.rows,
          p.cols,
          p.n,
          p.ldx,
          p.ldy,
          ws_bytes,
          alignment_of(p.w_dev),
          alignment_of(p.x_dev),
          alignment_of(p.y_dev),
          p.bias_dev == nullptr ? 0 : alignment_of(p.bias_dev),
          p.type,
          p.accumulate};
}

std::size_t hash_of(const cache_key& key) noexcept {
  std::uint64_t hash = 0;
  for (const std::uint64_t word : {key.rows, key.cols, key.n, key.ldx, key.ldy, key.ws_bytes}) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 29;
  }
  return hash;
}

struct workspace_part {
  void* data = nullptr;
  std::uint64_t n_bytes = 0;
};
/// From the first multiple of 256 on: cuBLASLt wants no less.
workspace_part align_workspace(void* data, std::uint64_t n_bytes) noexcept {
  constexpr std::uintptr_t kAlignment = 256;
  const auto skipped = (0 - reinterpret_cast<std::uintptr_t>(data)) % kAlignment;
  if (data == nullptr || n_bytes <= skipped) return {};
  return {static_cast<std::byte*>(data) + skipped, n_bytes - skipped};
}

library_product dense(library_product p) noexcept {
  if (p.ldx == 0) p.ldx = p.cols;
  if (p.ldy == 0) p.ldy = p.rows;
  return p;
}

/// The descriptors of one product. Column-major, as cuBLASLt thinks, Y is rows x n and W is transposed.
class descriptors {
 public:
  descriptors(const library_api& api, const library_product& p) noexcept : api_(api) {
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    if (p.ldx > kMost || p.ldy > kMost || p.cols > kMost) return;
    const cudaDataType_t type = p.type == dtype::f16 ? CUDA_R_16F : CUDA_R_16BF;
    constexpr cublasOperation_t kTransposed = CUBLAS_OP_T;
    ok_ = done(api.descriptor_create(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
          set(CUBLASLT_MATMUL_DESC_TRANSA, kTransposed) &&
          done(api.layout_create(&w, type, p.cols, p.rows, static_cast<std::int64_t>(p.cols))) &&
          done(api.layout_create(&x, type, p.cols, p.n, static_cast<std::int64_t>(p.ldx))) &&
          done(api.layout_create(&y, type, p.rows, p.n, static_cast<std::int64_t>(p.ldy)));
    if (ok_ && p.bias_dev != nullptr) {
      constexpr cublasLtEpilogue_t kBias = CUBLASLT_EPILOGUE_BIAS;
      ok_ = set(CUBLASLT_MATMUL_DESC_EPILOGUE, kBias) && set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias_dev);
    }
  }
  descriptors(const descriptors&) = delete;
  descriptors& operator=(const descriptors&) = delete;
  ~descriptors() {
    for (const cublasLtMatrixLayout_t layout : {w, x, y}) {
      if (layout != nullptr) (void)api_.layout_destroy(layout);
    }
    if (product != nullptr) (void)api_.descriptor_destroy(product);
  }
  [[nodiscard]] bool ok() const noexcept { return ok_; }

  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;

 private:
  static bool done(cublasStatus_t status) noexcept { return status == CUBLAS_STATUS_SUCCESS; }
  template <class Value>
  bool set(cublasLtMatmulDescAttributes_t attribute, const Value& value) const noexcept {
    return done(api_.descriptor_set(product, attribute, &value, sizeof value));
  }

  const library_api& api_;
  bool ok_ = false;
};

class preference {
 public:
  /// `exact`: partial sums are never rounded to the output's type.
  preference(const library_api& api, const cache_key& key, bool exact) noexcept : api_(api) {
    if (api.preference_create(&get) != CUBLAS_STATUS_SUCCESS) return;
    ok_ = set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, key.ws_bytes) &&
          set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.w_alignment) &&
          set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.x_alignment) &&
          set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.y_alignment) &&
          set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.y_alignment) &&
          (!exact || set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                         static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)));
  }
  preference(const preference&) = delete;
  preference& operator=(const preference&) = delete;
  ~preference() {
    if (get != nullptr) (void)api_.preference_destroy(get);
  }
  [[nodiscard]] bool ok() const noexcept { return ok_; }

  cublasLtMatmulPreference_t get = nullptr;

 private:
  template <class Value>
  bool set(cublasLtMatmulPreferenceAttributes_t attribute, Value value) const noexcept {
    return api_.preference_set(get, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
  }

  const library_api& api_;
  bool ok_ = false;
};

/// The library for one device.
class device_library final : public library_gemm {
 public:
  device_library(const library_api& api, cublasLtHandle_t handle) noexcept : api_(api), handle_(handle) {}
  device_library(const device_library&) = delete;
  device_library& operator=(const device_library&) = delete;
  ~device_library() { (void)api_.destroy(handle_); }

  [[nodiscard]] int ask(const library_product& p, std::uint64_t ws_bytes,
                        cublasLtMatmulHeuristicResult_t* into, int most, bool exact) const noexcept {
    const descriptors d(api_, p);
    const preference wish(api_, key_of(p, ws_bytes), exact);
    int found = 0;
    if (!d.ok() || !wish.ok() ||
        api_.heuristic(handle_, d.product, d.w, d.x, d.y, d.y, wish.get, most, into, &found) !=
            CUBLAS_STATUS_SUCCESS) {
      return 0;
    }
    return found;
  }

  /// The first guess for the product, remembered. Of two products on one place of the cache the later one
  /// stays.
  [[nodiscard]] bool choose(const library_product& p, std::uint64_t ws_bytes,
                            library_choice& choice) const noexcept {
    const cache_key key = key_of(p, ws_bytes);
    cached& place = cache_[hash_of(key) % kCachePlaces];
    {
      const std::lock_guard lock(mutex_);
      if (place.filled && place.key == key) {
        choice = place.choice;
        return true;
      }
    }
    cublasLtMatmulHeuristicResult_t first{};
    if (ask(p, ws_bytes, &first, 1, true) != 1) return false;
    std::memcpy(choice.algorithm.data(), &first.algo, sizeof first.algo);
    choice.workspace_bytes = first.workspaceSize;
    const std::lock_guard lock(mutex_);
    place = {key, choice, true};
    return true;
  }

  [[nodiscard]] gpu_error run(const library_product& p, const library_choice& choice,
                              const workspace_part& ws, stream s) const noexcept {
    const descriptors d(api_, p);
    if (!d.ok()) return cudaErrorInvalidValue;
    cublasLtMatmulAlgo_t algorithm{};
    std::memcpy(&algorithm, choice.algorithm.data(), sizeof algorithm);
    const float one = 1, factor = p.accumulate ? 1 : 0;
    return error_of(api_.matmul(handle_, d.product, &one, p.w_dev, d.w, p.x_dev, d.x, &factor, p.y_dev, d.y,
                                p.y_dev, d.y, &algorithm, ws.data, ws.n_bytes, s));
  }

 private:
  struct cached {
    cache_key key = {};
    library_choice choice = {};
    bool filled = false;
  };
  static constexpr std::size_t kCachePlaces = 512;

  const library_api& api_;
  cublasLtHandle_t handle_;
  mutable std::mutex mutex_;
  mutable std::array<cached, kCachePlaces> cache_ = {};
};

/// One library a device, made when it is first asked for.
class device_libraries {
 public:
  [[nodiscard]] const library_gemm* find(const library_api& api, int device) {
    const std::lock_guard lock(mutex_);
    const auto index = static_cast<std::size_t>(device);
    if (index >= devices_.size()) devices_.resize(index + 1);
    entry& e = devices_[index];
    if (!e.tried) {
      e.tried = true;
      cublasLtHandle_t handle = nullptr;
      if (api.create(&handle) == CUBLAS_STATUS_SUCCESS)
        e.library = new (std::nothrow) device_library(api, handle);
    }
    return e.library;
  }

 private:
  struct entry {
    bool tried = false;
    // Never deleted: the driver may be gone before static objects are.
    const device_library* library = nullptr;
  };
  std::mutex mutex_;
  std::vector<entry> devices_;
};

const device_library& self(const library_gemm& library) noexcept {
  return static_cast<const device_library&>(library);
}

}  // namespace

const library_gemm* library_gemm::find() noexcept {
  const library_api* const api = find_library_api();
  int device = 0;
  if (api == nullptr || cudaGetDevice(&device) != cudaSuccess || device < 0) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  try {
    static device_libraries libraries;
    return libraries.find(*api, device);
  } catch (const std::exception&) {
    return nullptr;
  }
}

std::vector<library_choice> library_gemm::choices(const library_product& product, std::uint64_t ws_bytes,
                                                  int most) const {
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<std::size_t>(std::max(most, 1)));
  found.resize(static_cast<std::size_t>(
      self(*this).ask(dense(product), ws_bytes, found.data(), static_cast<int>(found.size()), false)));
  std::vector<library_choice> choices;
  for (const cublasLtMatmulHeuristicResult_t& f : found) {
    if (f.state != CUBLAS_STATUS_SUCCESS) continue;
    library_choice& choice = choices.emplace_back();
    std::memcpy(choice.algorithm.data(), &f.algo, sizeof f.algo);
    choice.workspace_bytes = f.workspaceSize;
  }
  return choices;
}

gpu_error library_gemm::multiply(const library_product& product, void* ws_dev, std::uint64_t ws_bytes,
                                 stream s) const noexcept {
  const library_product p = dense(product);
  const workspace_part ws = align_workspace(ws_dev, ws_bytes);
  library_choice choice;
  if (!self(*this).choose(p, ws.n_bytes, choice)) return cudaErrorNotSupported;
  return self(*this).run(p, choice, ws, s);
}

gpu_error library_gemm::multiply(const library_product& product, const library_choice& choice, void* ws_dev,
                                 std::uint64_t ws_bytes, stream s) const noexcept {
  return self(*this).run(dense(product), choice, align_workspace(ws_dev, ws_bytes), s);
}

}  // namespace tersor::cuda
