// Pools of pages on the twin, and what their frames must be.
#pragma once

#include <string>

#include "twin_data.hpp"

namespace twin {

namespace kv = tersor::cuda::kv;

/// How pools lie in memory.
struct pool_choice {
  tersor::dtype type = tersor::dtype::bf16;
  kv::pool_order order = kv::pool_order::kv_blocks_nhd;
  std::uint32_t n_layers = 1;
  std::uint32_t n_blocks = 4, block_size = 4, kv_heads = 2, head_dim = 128;
  /// Where a layer's tensor begins, in bytes past a multiple of 256.
  std::size_t offset = 0;

  [[nodiscard]] std::string text() const;
};

struct pool_memory {
  kv::page_pools pools;
  std::vector<std::byte*> layers;
  std::size_t layer_bytes = 0;
};
/// Pools full of values, or of memory that was never written.
pool_memory make_filled(device& d, const pool_choice& choice, kind k, std::uint64_t seed);
pool_memory make_empty(device& d, const pool_choice& choice);

/// Address of a value.
std::byte* value_at(const pool_memory& m, std::size_t pool, std::uint64_t page, std::uint64_t token,
                    std::uint64_t head, std::uint64_t i);
/// The values of pages in (token, head, i) order.
bytes gather(const pool_memory& m, std::size_t pool, std::span<const std::int32_t> ids);
/// Whether kernels have written exactly these pages of a pool that make_empty made.
void expect_only_pages(device& d, const pool_memory& m, std::span<const std::int32_t> ids);

std::vector<std::uint64_t> shape_of(const pool_choice& choice, kv::page_frames kind, std::uint64_t n_pages);
/// `n` different pages out of all, in no order.
std::vector<std::int32_t> shuffled_ids(const pool_choice& choice, std::size_t n, std::uint64_t seed);
const std::int32_t* upload_ids(device& d, std::span<const std::int32_t> ids);

/// Frames of pages in device memory.
struct page_frames_memory {
  std::byte* frames = nullptr;
  tersor::cuda::frame_result* results = nullptr;
  std::size_t n_frames = 0;
  kv::page_store store;
  std::byte* overflow = nullptr;
};
/// A slot that holds every frame, and no overflow area, unless told otherwise.
struct store_choice {
  tersor::codec c = tersor::codec::rank;
  kv::page_frames kind = kv::page_frames::gathered;
  tersor::cuda::tail_order order = tersor::cuda::tail_order::canonical;
  std::uint64_t stride = 0;  ///< 0 = the bound
  bool overflow = false;
  std::uint32_t overflow_places = 0;
};
/// Encodes; the codebooks are exact and come from the device too.
page_frames_memory encode_pages(device& d, const pool_memory& from, std::span<const std::int32_t> ids,
                                const store_choice& choice);
/// Decodes what encode_pages left, from memory that kernels may only read, with encoding's results if it has
/// an overflow area.
std::vector<tersor::cuda::frame_result> decode_pages(device& d, tersor::codec c, const pool_memory& to,
                                                     std::span<const std::int32_t> ids,
                                                     const page_frames_memory& frames,
                                                     const tersor::cuda::frame_result* where_dev);

}  // namespace twin
