// The C ABI of tersor/gemm.hpp.
#include <cstddef>

#include "c_api/cuda_types.hpp"
#include "c_api/matrix_types.hpp"
#include <tersor/gemm.hpp>

namespace {

using tersor::errc;
using tersor::fail;
using tersor::result;
using tersor::status;
using tersor::c_api::require;
using tersor::c_api::run;
using tersor::c_api::size_or_zero;
using tersor::c_api::to_dtype;
using tersor::c_api::to_info;
using tersor::c_api::to_layout;
using tersor::c_api::to_order;
using tersor::c_api::to_pack_options;
using tersor::c_api::to_stream;
using tersor::c_api::to_view;
using tersor::c_api::to_workspace;
namespace cuda = tersor::cuda;

// The device writes one and the caller reads the other.
static_assert(sizeof(tersor_cuda_matrix_result) == 16 && sizeof(cuda::matrix_result) == 16);
static_assert(offsetof(tersor_cuda_matrix_result, code) == offsetof(cuda::matrix_result, code));
static_assert(offsetof(tersor_cuda_matrix_result, block) == offsetof(cuda::matrix_result, block));
static_assert(offsetof(tersor_cuda_matrix_result, n_bytes) == offsetof(cuda::matrix_result, n_bytes));

static_assert(static_cast<int>(cuda::gemm_kernel::automatic) == TERSOR_CUDA_GEMM_AUTOMATIC);
static_assert(static_cast<int>(cuda::gemm_kernel::warp_mma) == TERSOR_CUDA_GEMM_WARP_MMA);
static_assert(static_cast<int>(cuda::gemm_kernel::bulk_mma) == TERSOR_CUDA_GEMM_BULK_MMA);
static_assert(static_cast<int>(cuda::gemm_kernel::wgmma) == TERSOR_CUDA_GEMM_WGMMA);
static_assert(static_cast<int>(cuda::gemm_kernel::tcatbe) == TERSOR_CUDA_GEMM_TCATBE);
static_assert(static_cast<int>(cuda::gemm_kernel::library) == TERSOR_CUDA_GEMM_LIBRARY);

cuda::matrix_result* as_result(tersor_cuda_matrix_result* p) noexcept {
  return reinterpret_cast<cuda::matrix_result*>(p);
}

result<cuda::gemm_plan> to_plan(const tersor_cuda_gemm_plan& in) {
  if (in.kernel < TERSOR_CUDA_GEMM_AUTOMATIC || in.kernel > TERSOR_CUDA_GEMM_LIBRARY)
    return fail(errc::invalid_argument, "unknown kernel number");
  return cuda::gemm_plan{.kernel = static_cast<cuda::gemm_kernel>(in.kernel),
                         .n_tile = in.n_tile,
                         .row_blocks = in.row_blocks,
                         .ctas = in.ctas,
                         .split_k = in.kernel == TERSOR_CUDA_GEMM_AUTOMATIC ? 1 : in.split_k};
}

result<cuda::gemm_shape> to_shape(const tersor_cuda_gemm_shape& in) {
  cuda::gemm_shape shape{.rows = in.rows, .cols = in.cols, .n = in.n, .groups = in.groups};
  TERSOR_TRY(shape.layout, to_layout(in.layout));
  TERSOR_TRY(shape.type, to_dtype(in.dtype));
  return shape;
}

cuda::gemm_device to_device(const tersor_cuda_gemm_device& in) noexcept {
  return {.compute_major = in.compute_major,
          .compute_minor = in.compute_minor,
          .multiprocessors = in.multiprocessors,
          .shared_bytes = in.shared_bytes,
          .has_library = in.has_library != 0};
}

result<cuda::gemm_options> to_options(const tersor_cuda_gemm_options* in) {
  if (in == nullptr) return cuda::gemm_options{};
  cuda::gemm_options options{.bias_dev = in->bias_dev,
                             .accumulate = in->accumulate != 0,
                             .overlap_previous = in->overlap_previous != 0};
  TERSOR_TRY(options.plan, to_plan(in->plan));
  return options;
}

}  // namespace

extern "C" {

std::int32_t tersor_cuda_current_gemm_device(tersor_cuda_gemm_device* device) {
  return run([&]() -> status {
    TERSOR_CHECK(require(device));
    *device = {};
    TERSOR_TRY(const auto found, cuda::current_gemm_device());
    *device = {.compute_major = found.compute_major,
               .compute_minor = found.compute_minor,
               .multiprocessors = found.multiprocessors,
               .shared_bytes = found.shared_bytes,
               .has_library = found.has_library ? 1 : 0};
    return {};
  });
}

std::int32_t tersor_cuda_plan_gemm(const tersor_cuda_gemm_shape* shape, const tersor_cuda_gemm_device* device,
                                   tersor_cuda_gemm_plan* plan) {
  return run([&]() -> status {
    TERSOR_CHECK(require(shape, device, plan));
    TERSOR_TRY(const auto what, to_shape(*shape));
    const cuda::gemm_plan found = cuda::plan_gemm(what, to_device(*device));
    *plan = {.kernel = static_cast<std::int32_t>(found.kernel),
             .n_tile = found.n_tile,
             .row_blocks = found.row_blocks,
             .ctas = found.ctas,
             .split_k = found.split_k};
    return {};
  });
}

std::uint64_t tersor_cuda_gemm_workspace_size(const tersor_cuda_gemm_shape* shape,
                                              const tersor_cuda_gemm_plan* plan,
                                              const tersor_cuda_gemm_device* device) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_CHECK(require(shape, device));
    TERSOR_TRY(const auto what, to_shape(*shape));
    TERSOR_TRY(const auto how, to_plan(plan == nullptr ? tersor_cuda_gemm_plan{} : *plan));
    return cuda::gemm_workspace_size(what, how, to_device(*device));
  });
}

std::int32_t tersor_cuda_gemm_async(const tersor_matrix_info* info, const void* packed_dev, const void* x_dev,
                                    std::uint64_t ldx, void* y_dev, std::uint64_t ldy, std::uint64_t n,
                                    const tersor_cuda_gemm_options* options, void* workspace_dev,
                                    std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(info));
    cuda::packed_weight weight{.info = {}, .data_dev = packed_dev};
    TERSOR_TRY(weight.info, to_info(*info));
    TERSOR_TRY(const auto how, to_options(options));
    return cuda::gemm_async(weight, x_dev, ldx, y_dev, ldy, n, how,
                            to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::int32_t tersor_cuda_grouped_gemm_async(const tersor_matrix_info* info,
                                            const tersor_cuda_gemm_groups* groups, const void* x_dev,
                                            std::uint64_t ldx, void* y_dev, std::uint64_t ldy,
                                            const tersor_cuda_gemm_options* options, void* workspace_dev,
                                            std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(info, groups));
    TERSOR_TRY(const auto what, to_info(*info));
    TERSOR_TRY(const auto how, to_options(options));
    const cuda::gemm_groups all{.n_groups = groups->n_groups,
                                .weights_dev = groups->weights_dev,
                                .first_token_dev = groups->first_token_dev,
                                .max_tokens = groups->max_tokens,
                                .n_tokens = groups->n_tokens};
    return cuda::grouped_gemm_async(what, all, x_dev, ldx, y_dev, ldy, how,
                                    to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::uint64_t tersor_cuda_pack_workspace_size(std::int32_t layout, std::uint32_t inline_escapes,
                                              std::int32_t dtype, std::uint64_t rows, std::uint64_t cols) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto options, to_pack_options(layout, inline_escapes));
    TERSOR_TRY(const auto type, to_dtype(dtype));
    return cuda::pack_workspace_size(type, rows, cols, options);
  });
}

std::int32_t tersor_cuda_pack_async(std::int32_t layout, std::uint32_t inline_escapes,
                                    const tersor_matrix* src_dev, void* packed_dev, std::uint64_t capacity,
                                    tersor_cuda_matrix_result* result_dev, void* workspace_dev,
                                    std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(src_dev));
    TERSOR_TRY(const auto options, to_pack_options(layout, inline_escapes));
    TERSOR_TRY(const auto view, to_view(*src_dev));
    return cuda::pack_async(view, packed_dev, capacity, options, as_result(result_dev),
                            to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::int32_t tersor_cuda_unpack_async(const tersor_matrix_info* info, const void* packed_dev, void* dst_dev,
                                      std::int32_t order, std::uint64_t stride,
                                      tersor_cuda_matrix_result* result_dev, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(info));
    cuda::packed_weight weight{.info = {}, .data_dev = packed_dev};
    TERSOR_TRY(weight.info, to_info(*info));
    TERSOR_TRY(const auto how, to_order(order));
    return cuda::unpack_async(weight, dst_dev, how, stride, as_result(result_dev), to_stream(stream));
  });
}

}  // extern "C"
