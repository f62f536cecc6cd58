// The backend's table, in the place of the one that src/cuda/runtime links in.
#include "twin_backend.hpp"

#include "cuda/codec/histogram_kernel.cuh"
#include "cuda/codec/order_kernel.cuh"
#include "cuda/kv/raw_pages.cuh"

namespace twin {
namespace {

template <class Launch>
gpu_error order_tails(const Launch& launch, std::uint32_t ctas, stream) {
  using tersor::cuda::order_shared;
  return run_ctas<order_shared>(ctas, [&](order_shared& shared) { tersor::cuda::order_cta(launch, shared); });
}

template <class Launch>
gpu_error count_symbols(dtype type, const Launch& launch, const codebook_request& to, std::uint32_t ctas,
                        stream) {
  const tersor::cuda::codebook_target target{static_cast<tersor::cuda::symbol_counts*>(to.counts), to.books,
                                             to.n_entries};
  return by_dtype(type, [&](auto lane) {
    using one_lane = decltype(lane);
    using shared = tersor::cuda::histogram_shared<one_lane::kValueBytes>;
    return run_ctas<shared>(
        ctas, [&](shared& sh) { tersor::cuda::histogram_cta_of<one_lane>(launch, target, sh); });
  });
}

gpu_error store_overflow(dtype type, const page_launch& launch, std::uint32_t ctas, stream) {
  using tersor::cuda::raw_shared;
  return by_dtype(type, [&](auto lane) {
    return run_ctas<raw_shared>(
        ctas, [&](raw_shared& shared) { tersor::cuda::store_overflow_cta<decltype(lane)>(launch, shared); });
  });
}

gpu_error load_overflow(dtype type, const page_launch& launch, std::uint32_t ctas, stream) {
  using tersor::cuda::raw_shared;
  return by_dtype(type, [&](auto lane) {
    return run_ctas<raw_shared>(
        ctas, [&](raw_shared& shared) { tersor::cuda::load_overflow_cta<decltype(lane)>(launch, shared); });
  });
}

gpu_error clear(void* data, std::uint64_t n_bytes, stream) {
  return device::current()->clear(data, n_bytes);
}

std::uint32_t multiprocessors() {
  return device::current() == nullptr ? 0 : device::current()->multiprocessors();
}

gpu_error limits(tersor::cuda::gemm_device& device) {
  device = {.multiprocessors = multiprocessors()};
  return 0;
}

const char* error_text(gpu_error) {
  return device::current()->fault().c_str();
}

gpu_error list(std::vector<tersor::cuda::device_info>& devices) {
  tersor::cuda::device_info info;
  info.name = "host twin";
  info.multiprocessors = multiprocessors();
  devices.push_back(info);
  return 0;
}

}  // namespace
}  // namespace twin

namespace tersor::cuda {

const gpu_backend* find_gpu_backend() noexcept {
  static constexpr gpu_backend kBackend = {.encode = twin::encode_tensors,
                                           .encode_pages = twin::encode_pages,
                                           .decode = twin::decode_tensors,
                                           .decode_pages = twin::decode_pages,
                                           .order = twin::order_tails<tensor_launch>,
                                           .order_pages = twin::order_tails<page_launch>,
                                           .count = twin::count_symbols<one_tensor_launch>,
                                           .count_pages = twin::count_symbols<page_launch>,
                                           .store_overflow = twin::store_overflow,
                                           .load_overflow = twin::load_overflow,
                                           .copy_tails = twin::copy_tails,
                                           .recheck = twin::recheck,
                                           .unpack_matrix = twin::unpack_matrix,
                                           .pack_matrix = twin::pack_matrix,
                                           .gemm = twin::gemm,
                                           .tcatbe_gemm = twin::tcatbe_gemm,
                                           .tcatbe_unpack = twin::tcatbe_unpack,
                                           .tcatbe_pack = twin::tcatbe_pack,
                                           .limits = twin::limits,
                                           .clear = twin::clear,
                                           .multiprocessors = twin::multiprocessors,
                                           .error_text = twin::error_text,
                                           .list = twin::list};
  return &kBackend;
}

}  // namespace tersor::cuda
