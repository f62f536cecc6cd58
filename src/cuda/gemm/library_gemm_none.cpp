// In a build without CUDA.
#include "cuda/gemm/library_gemm.hpp"

namespace tersor::cuda {
namespace {

constexpr gpu_error kNoDevice = 100;

}  // namespace

const library_gemm* library_gemm::find() noexcept {
  return nullptr;
}

gpu_error library_gemm::multiply(const library_product& /*product*/, void* /*ws_dev*/,
                                 std::uint64_t /*ws_bytes*/, stream /*s*/) const noexcept {
  return kNoDevice;
}

gpu_error library_gemm::multiply(const library_product& /*product*/, const library_choice& /*choice*/,
                                 void* /*ws_dev*/, std::uint64_t /*ws_bytes*/, stream /*s*/) const noexcept {
  return kNoDevice;
}

std::vector<library_choice> library_gemm::choices(const library_product& /*product*/,
                                                  std::uint64_t /*ws_bytes*/, int /*most*/) const {
  return {};
}

}  // namespace tersor::cuda
