#include "cuda/gemm/tcatbe_pack.cuh"
#include "cuda/gemm/tcatbe_unpack.cuh"
#include "twin_backend.hpp"

namespace twin {
namespace {

using tersor::cuda::kCtaThreads;

template <class Shared, class Body>
gpu_error run_threads(std::uint32_t ctas, std::uint32_t n_threads, const Body& body) {
  return device::current()->run({.n_ctas = ctas, .n_threads = n_threads, .shared_bytes = sizeof(Shared)},
                                [&](void* shared) { body(*static_cast<Shared*>(shared)); });
}

}  // namespace

// Both as src/cuda/gemm/tcatbe_matrix.cu does.

gpu_error tcatbe_unpack(const tersor::cuda::tcatbe_unpack_launch& launch, std::uint32_t ctas, stream) {
  using shared = tersor::cuda::tcatbe_unpack_shared;
  if (launch.result != nullptr) {
    const gpu_error error = device::current()->run({.n_threads = 32, .shared_bytes = 16}, [&](void*) {
      if (tersor::cuda::ptx::thread_index() == 0) tersor::cuda::begin_tcatbe_unpack(launch);
    });
    if (error != 0) return error;
  }
  return run_threads<shared>(ctas, shared::kThreads,
                             [&](shared& sh) { tersor::cuda::tcatbe_unpack_cta(launch, sh); });
}

gpu_error tcatbe_pack(int pass, const tersor::cuda::tcatbe_pack_launch& launch, std::uint32_t ctas, stream) {
  using namespace tersor::cuda;
  switch (pass) {
    case 0:
      return run_ctas<tcatbe_count_shared>(ctas,
                                           [&](tcatbe_count_shared& sh) { count_exponents_cta(launch, sh); });
    case 1:
      return run_ctas<tcatbe_window_shared>(1,
                                            [&](tcatbe_window_shared& sh) { choose_window_cta(launch, sh); });
    case 2:
      return run_ctas<tcatbe_strips_shared>(ctas,
                                            [&](tcatbe_strips_shared& sh) { count_tiles_cta(launch, sh); });
    case 3:
      return run_threads<tcatbe_place_shared>(1, kTcatbePlaceThreads,
                                              [&](tcatbe_place_shared& sh) { place_tiles_cta(launch, sh); });
    default:
      return run_threads<tcatbe_write_shared>(ctas, tcatbe_write_shared::kThreads,
                                              [&](tcatbe_write_shared& sh) { write_tiles_cta(launch, sh); });
  }
}

}  // namespace twin
