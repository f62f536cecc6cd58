// A paged KV cache in device memory with a copy on the host, and the pages of it that are sent.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu_env.hpp"

namespace tersor::bench {

inline constexpr std::uint32_t kPageTokens = 16, kPageHeads = 8, kPageDim = 128;
inline constexpr int kPagePoison = 0xa5;

/// What the pools hold: page b of pool p is a piece of the pool's values whose place no other page shares.
struct cache_content {
  std::string data;
  std::vector<std::vector<std::byte>> values;  ///< of each pool, repeated as often as it takes
  void copy_page(std::uint64_t pool, std::uint64_t page, std::span<std::byte> dst) const noexcept;
};

/// Distinct page ids below `n_blocks` in an order of their own.
[[nodiscard]] std::vector<std::int32_t> shuffled_ids(std::uint64_t n_pages, std::uint64_t n_blocks,
                                                     std::uint64_t salt);

/// The layers' tensors of one storage order.
class paged_cache {
 public:
  [[nodiscard]] static result<paged_cache> create(cuda::kv::pool_order order, std::uint64_t layers,
                                                  std::uint64_t n_blocks);

  [[nodiscard]] const cuda::kv::page_pools& pools() const noexcept { return pools_; }
  /// Every page of the content.
  [[nodiscard]] status fill(core::thread_pool& pool, const cache_content& content);
  [[nodiscard]] status poison();
  /// Page `to[i]` holds the content's page `from[i]`, and everything else is poison.
  [[nodiscard]] status expect_pages(core::thread_pool& pool, const cache_content& content,
                                    std::span<const std::int32_t> from, std::span<const std::int32_t> to,
                                    const std::string& what) const;

 private:
  [[nodiscard]] std::uint64_t layer_bytes() const noexcept;
  void put_page(const cache_content& content, std::uint64_t pool, std::uint64_t from, std::uint64_t to,
                std::span<std::byte> layer) const;

  std::vector<device_buffer> layers_;
  cuda::kv::page_pools pools_;
};

/// The same pages side by side, one tensor a pool, with the codebooks of its values.
[[nodiscard]] result<workload> gather(const gpu_env& env, const cache_content& content,
                                      std::span<const std::int32_t> ids, std::uint64_t n_pools);

}  // namespace tersor::bench
