// The C ABI of the paged calls of tersor/cuda.hpp.
#include <algorithm>
#include <string>
#include <vector>

#include "c_api/cuda_types.hpp"

namespace {

using tersor::errc;
using tersor::fail;
using tersor::result;
using tersor::status;
using tersor::c_api::as_result;
using tersor::c_api::require;
using tersor::c_api::run;
using tersor::c_api::size_or_zero;
using tersor::c_api::to_codec;
using tersor::c_api::to_dtype;
using tersor::c_api::to_stream;
using tersor::c_api::to_tail_order;
using tersor::c_api::to_workspace;
namespace cuda = tersor::cuda;
namespace kv = tersor::cuda::kv;

static_assert(static_cast<int>(kv::pool_order::kv_blocks_nhd) == TERSOR_CUDA_KV_BLOCKS_NHD);
static_assert(static_cast<int>(kv::pool_order::blocks_kv_nhd) == TERSOR_CUDA_BLOCKS_KV_NHD);
static_assert(static_cast<int>(kv::pool_order::kv_blocks_hnd) == TERSOR_CUDA_KV_BLOCKS_HND);
static_assert(static_cast<int>(kv::pool_order::blocks_kv_hnd) == TERSOR_CUDA_BLOCKS_KV_HND);
static_assert(static_cast<int>(kv::pool_order::mla) == TERSOR_CUDA_MLA);

result<kv::page_frames> to_kind(std::int32_t id) {
  if (id == TERSOR_CUDA_GATHERED) return kv::page_frames::gathered;
  if (id == TERSOR_CUDA_SLOTS) return kv::page_frames::slots;
  return fail(errc::invalid_argument, "unknown kind of page frames");
}

result<kv::page_layout> to_layout(const tersor_cuda_page_layout& in) {
  kv::page_layout layout{.n_blocks = in.n_blocks,
                         .block_size = in.block_size,
                         .kv_heads = in.kv_heads,
                         .head_dim = in.head_dim,
                         .page_stride = in.page_stride,
                         .token_stride = in.token_stride,
                         .head_stride = in.head_stride,
                         .value_stride = in.value_stride};
  TERSOR_TRY(layout.type, to_dtype(in.dtype));
  return layout;
}

tersor_cuda_page_layout from_layout(const kv::page_layout& in) noexcept {
  return {.dtype = static_cast<std::int32_t>(in.type),
          .block_size = in.block_size,
          .kv_heads = in.kv_heads,
          .head_dim = in.head_dim,
          .n_blocks = in.n_blocks,
          .page_stride = in.page_stride,
          .token_stride = in.token_stride,
          .head_stride = in.head_stride,
          .value_stride = in.value_stride};
}

result<kv::page_pools> to_pools(const tersor_cuda_page_pools* in) {
  TERSOR_CHECK(require(in));
  if (in->pools == nullptr && in->n_pools != 0) return fail(errc::invalid_argument, "null list of pools");
  kv::page_pools out;
  TERSOR_TRY(out.layout, to_layout(in->layout));
  out.pools.assign(in->pools, in->pools + in->n_pools);
  return out;
}

result<kv::page_store> to_store(const tersor_cuda_page_store* in) {
  TERSOR_CHECK(require(in));
  kv::page_store store{.frames_dev = in->frames_dev,
                       .frame_stride = in->frame_stride,
                       .overflow_dev = in->overflow_dev,
                       .overflow_places = in->overflow_places,
                       .overflow_used_dev = in->overflow_used_dev};
  TERSOR_TRY(store.kind, to_kind(in->kind));
  return store;
}

result<kv::page_list> to_list(const tersor_cuda_page_list* in) {
  TERSOR_CHECK(require(in));
  return kv::page_list{.ids_dev = in->ids_dev, .n_pages = in->n_pages};
}

}  // namespace

extern "C" {

std::int32_t tersor_cuda_make_pools(std::int32_t order, std::int32_t dtype, void* const* layers_dev,
                                    std::uint64_t n_layers, std::uint64_t n_blocks, std::uint32_t block_size,
                                    std::uint32_t kv_heads, std::uint32_t head_dim, void** pools,
                                    std::uint64_t pools_capacity, tersor_cuda_page_pools* out) {
  return run([&]() -> status {
    TERSOR_CHECK(require(layers_dev, pools, out));
    if (order < TERSOR_CUDA_KV_BLOCKS_NHD || order > TERSOR_CUDA_MLA) {
      return fail(errc::invalid_argument, "unknown pool order");
    }
    TERSOR_TRY(const auto type, to_dtype(dtype));
    TERSOR_TRY(const auto made,
               kv::make_pools(static_cast<kv::pool_order>(order), type, {layers_dev, n_layers}, n_blocks,
                              block_size, kv_heads, head_dim));
    if (pools_capacity < made.pools.size()) {
      return fail(errc::destination_too_small, std::to_string(made.pools.size()) + " addresses need a place");
    }
    std::ranges::copy(made.pools, pools);
    *out = {.layout = from_layout(made.layout), .pools = pools, .n_pools = made.pools.size()};
    return {};
  });
}

std::uint64_t tersor_cuda_raw_frame_bytes(const tersor_cuda_page_layout* layout) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_CHECK(require(layout));
    TERSOR_TRY(const auto in, to_layout(*layout));
    return kv::raw_frame_bytes(in);
  });
}

std::uint64_t tersor_cuda_page_frame_bound(std::int32_t codec, const tersor_cuda_page_layout* layout,
                                           std::int32_t kind, std::uint32_t n_pages) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_CHECK(require(layout));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto in, to_layout(*layout));
    TERSOR_TRY(const auto frames, to_kind(kind));
    return kv::page_frame_bound(c, in, frames, n_pages);
  });
}

std::uint64_t tersor_cuda_suggest_slot_bytes(const std::uint64_t* frame_bytes, std::uint64_t n_frames,
                                             double coverage) {
  if (frame_bytes == nullptr) return 0;
  return kv::suggest_slot_bytes({frame_bytes, n_frames}, coverage);
}

std::uint64_t tersor_cuda_pages_workspace_size(std::int32_t codec, const tersor_cuda_page_pools* pools,
                                               std::int32_t kind, std::uint32_t n_pages,
                                               std::int32_t tail_order) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto in, to_pools(pools));
    TERSOR_TRY(const auto frames, to_kind(kind));
    TERSOR_TRY(const auto order, to_tail_order(tail_order));
    return kv::pages_workspace_size(c, in, frames, n_pages, order);
  });
}

std::uint64_t tersor_cuda_codebooks_workspace_size(const tersor_cuda_page_pools* pools) {
  return size_or_zero([&]() -> result<std::uint64_t> {
    TERSOR_TRY(const auto in, to_pools(pools));
    return kv::codebooks_workspace_size(in);
  });
}

std::int32_t tersor_cuda_make_codebooks_async(std::int32_t codec, const tersor_cuda_page_pools* pools,
                                              const tersor_cuda_page_list* pages, std::uint8_t* codebooks_dev,
                                              void* workspace_dev, std::uint64_t workspace_bytes,
                                              void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(codebooks_dev));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto in, to_pools(pools));
    TERSOR_TRY(const auto list, to_list(pages));
    return kv::make_codebooks_async(c, in, list, codebooks_dev, to_workspace(workspace_dev, workspace_bytes),
                                    to_stream(stream));
  });
}

std::int32_t tersor_cuda_encode_pages_async(std::int32_t codec, const tersor_cuda_page_pools* pools,
                                            const tersor_cuda_page_list* pages,
                                            const std::uint8_t* codebooks_dev,
                                            const tersor_cuda_page_store* store,
                                            tersor_cuda_frame_result* results_dev, std::int32_t tail_order,
                                            void* workspace_dev, std::uint64_t workspace_bytes,
                                            void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(codebooks_dev, results_dev));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto in, to_pools(pools));
    TERSOR_TRY(const auto list, to_list(pages));
    TERSOR_TRY(const auto to, to_store(store));
    TERSOR_TRY(const auto order, to_tail_order(tail_order));
    return kv::encode_pages_async(c, in, list, codebooks_dev, to, as_result(results_dev), order,
                                  to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::int32_t tersor_cuda_decode_pages_async(std::int32_t codec, const tersor_cuda_page_pools* pools,
                                            const tersor_cuda_page_list* pages,
                                            const tersor_cuda_page_store* store,
                                            const tersor_cuda_frame_result* where_dev,
                                            tersor_cuda_frame_result* results_dev, void* workspace_dev,
                                            std::uint64_t workspace_bytes, void* stream) {
  return run([&]() -> status {
    TERSOR_CHECK(require(results_dev));
    TERSOR_TRY(const auto c, to_codec(codec));
    TERSOR_TRY(const auto in, to_pools(pools));
    TERSOR_TRY(const auto list, to_list(pages));
    TERSOR_TRY(const auto from, to_store(store));
    return kv::decode_pages_async(c, in, list, from, as_result(where_dev), as_result(results_dev),
                                  to_workspace(workspace_dev, workspace_bytes), to_stream(stream));
  });
}

std::int32_t tersor_cuda_known_speed(std::int32_t codec, const char* device_name,
                                     tersor_cuda_codec_speed* speed) {
  return run([&]() -> status {
    TERSOR_CHECK(require(device_name, speed));
    TERSOR_TRY(const auto c, to_codec(codec));
    const auto known = kv::known_speed(c, device_name);
    if (!known) return fail(errc::not_found, std::string("no figures for ") + device_name);
    *speed = {.encode_gb_s = known->encode_gb_s,
              .decode_gb_s = known->decode_gb_s,
              .encode_us = known->encode_us,
              .decode_us = known->decode_us,
              .ratio = known->ratio};
    return {};
  });
}

std::int32_t tersor_cuda_worth_it(std::uint64_t n_bytes, double link_gb_s,
                                  const tersor_cuda_codec_speed* speed) {
  if (speed == nullptr) return 0;
  const kv::codec_speed in{.encode_gb_s = speed->encode_gb_s,
                           .decode_gb_s = speed->decode_gb_s,
                           .encode_us = speed->encode_us,
                           .decode_us = speed->decode_us,
                           .ratio = speed->ratio};
  return kv::worth_it(n_bytes, link_gb_s, in) ? 1 : 0;
}

}  // extern "C"
