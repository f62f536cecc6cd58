// Where pages lie in the pools of serving engines, and how large their frames may be.
#include <algorithm>
#include <limits>

#include "core/checked.hpp"
#include "cuda/kv/bounds.hpp"
#include <tersor/cuda.hpp>

namespace tersor::cuda::kv {
namespace {

constexpr std::uint64_t kSlotUnit = 128;

std::optional<std::uint64_t> product(std::initializer_list<std::uint64_t> factors) noexcept {
  std::optional<std::uint64_t> all = 1;
  for (const std::uint64_t factor : factors) {
    all = core::checked_mul(*all, factor);
    if (!all) return std::nullopt;
  }
  return all;
}

std::optional<std::uint64_t> values_of(const page_layout& layout, std::uint64_t n_pages) noexcept {
  return product({n_pages, layout.block_size, layout.kv_heads, layout.head_dim});
}

/// Fills strides inside a page and checks what all orders have in common.
result<page_layout> make_layout(bool hnd, dtype type, std::uint64_t n_blocks, std::uint32_t block_size,
                                std::uint32_t kv_heads, std::uint32_t head_dim) {
  if (!is_gpu_dtype(type)) {
    return fail(errc::invalid_argument,
                std::string(to_string(type)) + " is not a dtype that the GPU encodes");
  }
  if (n_blocks == 0 || block_size == 0 || kv_heads == 0 || head_dim == 0) {
    return fail(errc::invalid_argument, "a pool has at least one block, token, head and value");
  }
  page_layout layout{.type = type,
                     .n_blocks = n_blocks,
                     .block_size = block_size,
                     .kv_heads = kv_heads,
                     .head_dim = head_dim};
  const auto page = values_of(layout, 1);
  if (!page) return fail(errc::size_overflow, "a page's values leave 64 bits");
  layout.page_stride = *page;
  layout.token_stride = hnd ? head_dim : std::uint64_t{kv_heads} * head_dim;
  layout.head_stride = hnd ? std::uint64_t{block_size} * head_dim : head_dim;
  return layout;
}

/// The whole of a tensor of `n_values` values at each address must lie below the end of the address space.
status check_tensors(std::span<void* const> tensors, dtype type, std::optional<std::uint64_t> n_values) {
  if (tensors.empty()) return fail(errc::invalid_argument, "no cache tensors");
  const auto n_bytes = n_values ? core::checked_mul(*n_values, value_bytes(type)) : std::nullopt;
  if (!n_bytes) return fail(errc::size_overflow, "a cache tensor's size leaves 64 bits");
  for (const void* tensor : tensors) {
    if (tensor == nullptr) return fail(errc::invalid_argument, "a cache tensor's address is null");
    if (!core::checked_add(reinterpret_cast<std::uintptr_t>(tensor), *n_bytes)) {
      return fail(errc::size_overflow, "a cache tensor leaves the address space");
    }
  }
  return {};
}

}  // namespace

result<page_pools> make_pools(pool_order order, dtype type, std::span<void* const> layers_dev,
                              std::uint64_t n_blocks, std::uint32_t block_size, std::uint32_t kv_heads,
                              std::uint32_t head_dim) {
  if (order > pool_order::mla) return fail(errc::invalid_argument, "unknown pool order");
  const bool hnd = order == pool_order::kv_blocks_hnd || order == pool_order::blocks_kv_hnd;
  const bool blocks_first = order == pool_order::blocks_kv_nhd || order == pool_order::blocks_kv_hnd;
  const bool both = order != pool_order::mla;
  if (!both && kv_heads != 1) {
    return fail(errc::invalid_argument, "an MLA cache has one latent vector per token: kv_heads must be 1");
  }
  page_pools out;
  TERSOR_TRY(out.layout, make_layout(hnd, type, n_blocks, block_size, kv_heads, head_dim));
  const std::uint64_t page_values = out.layout.page_stride;
  const std::uint64_t parts = both ? 2 : 1;
  TERSOR_CHECK(check_tensors(layers_dev, type, product({parts, n_blocks, page_values})));
  // Bounded by the tensor's size from here on.
  if (blocks_first) out.layout.page_stride = 2 * page_values;
  const std::uint64_t v_values = blocks_first ? page_values : n_blocks * page_values;
  out.pools.reserve(layers_dev.size() * parts);
  for (void* layer : layers_dev) {
    out.pools.push_back(layer);
    if (both) out.pools.push_back(static_cast<std::byte*>(layer) + v_values * value_bytes(type));
  }
  return out;
}

result<page_pools> make_separate_pools(bool hnd, dtype type, std::span<void* const> pools_dev,
                                       std::uint64_t n_blocks, std::uint32_t block_size,
                                       std::uint32_t kv_heads, std::uint32_t head_dim) {
  page_pools out;
  TERSOR_TRY(out.layout, make_layout(hnd, type, n_blocks, block_size, kv_heads, head_dim));
  TERSOR_CHECK(check_tensors(pools_dev, type, product({n_blocks, out.layout.page_stride})));
  out.pools.assign(pools_dev.begin(), pools_dev.end());
  return out;
}

std::uint64_t raw_frame_bytes(const page_layout& layout) noexcept {
  const auto values = values_of(layout, 1);
  return values ? raw_frame_size(layout.type, *values) : 0;
}

std::uint64_t page_frame_bound(codec c, const page_layout& layout, page_frames kind,
                               std::uint32_t n_pages) noexcept {
  const auto values = values_of(layout, kind == page_frames::gathered ? n_pages : 1);
  return values ? frame_bound(c, layout.type, *values) : 0;
}

std::uint64_t suggest_slot_bytes(std::span<const std::uint64_t> frame_bytes, double coverage) noexcept {
  if (frame_bytes.empty() || !(coverage > 0 && coverage <= 1)) return 0;
  const auto covers = [&](std::uint64_t units) noexcept {
    const auto fit =
        std::ranges::count_if(frame_bytes, [&](std::uint64_t n) { return n <= units * kSlotUnit; });
    return static_cast<double>(fit) / static_cast<double>(frame_bytes.size()) >= coverage;
  };
  // A search over sizes instead of a sorted copy: nothing is allocated, so nothing can fail.
  std::uint64_t low = 1;
  std::uint64_t high = std::numeric_limits<std::uint64_t>::max() / kSlotUnit;
  if (!covers(high)) return 0;
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    if (covers(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low * kSlotUnit;
}

}  // namespace tersor::cuda::kv
