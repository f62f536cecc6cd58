#include "gpu_cache.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

namespace tersor::bench {
namespace {

constexpr std::uint64_t kValueBytes = 2;  // BF16
constexpr std::uint64_t kPageValues = std::uint64_t{kPageTokens} * kPageHeads * kPageDim;
constexpr std::uint64_t kPageBytes = kPageValues * kValueBytes;

}  // namespace

void cache_content::copy_page(std::uint64_t pool, std::uint64_t page,
                              std::span<std::byte> dst) const noexcept {
  // An odd step, so that pages of a repeated source still differ.
  constexpr std::uint64_t kStep = (kPageValues + 37) * kValueBytes;
  const std::vector<std::byte>& source = values[pool % values.size()];
  std::uint64_t from = page * kStep % source.size();
  for (std::uint64_t at = 0; at < dst.size();) {
    const std::uint64_t n = std::min<std::uint64_t>(dst.size() - at, source.size() - from);
    std::memcpy(dst.data() + at, source.data() + from, n);
    at += n;
    from = 0;
  }
}

std::vector<std::int32_t> shuffled_ids(std::uint64_t n_pages, std::uint64_t n_blocks, std::uint64_t salt) {
  std::vector<std::int32_t> ids(n_blocks);
  std::iota(ids.begin(), ids.end(), 0);
  std::mt19937_64 random(salt);
  for (std::size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random() % i]);
  ids.resize(n_pages);
  return ids;
}

result<paged_cache> paged_cache::create(cuda::kv::pool_order order, std::uint64_t layers,
                                        std::uint64_t n_blocks) {
  paged_cache cache;
  std::vector<void*> addresses;
  for (std::uint64_t i = 0; i < layers; ++i) {
    TERSOR_TRY(device_buffer layer, device_buffer::allocate(2 * n_blocks * kPageBytes, kPagePoison));
    addresses.push_back(layer.data());
    cache.layers_.push_back(std::move(layer));
  }
  TERSOR_TRY(cache.pools_, cuda::kv::make_pools(order, dtype::bf16, addresses, n_blocks, kPageTokens,
                                                kPageHeads, kPageDim));
  return cache;
}

std::uint64_t paged_cache::layer_bytes() const noexcept {
  return 2 * pools_.layout.n_blocks * kPageBytes;
}

void paged_cache::put_page(const cache_content& content, std::uint64_t pool, std::uint64_t from,
                           std::uint64_t to, std::span<std::byte> layer) const {
  std::vector<std::byte> page(kPageBytes);
  content.copy_page(pool, from, page);
  const cuda::kv::page_layout& at = pools_.layout;
  const auto begin = static_cast<std::uint64_t>(static_cast<const std::byte*>(pools_.pools[pool]) -
                                                layers_[pool / 2].data());
  constexpr std::uint64_t kRun = kPageDim * kValueBytes;
  for (std::uint64_t token = 0; token < kPageTokens; ++token) {
    for (std::uint64_t head = 0; head < kPageHeads; ++head) {
      const std::uint64_t place = to * at.page_stride + token * at.token_stride + head * at.head_stride;
      std::memcpy(layer.data() + begin + place * kValueBytes,
                  page.data() + (token * kPageHeads + head) * kRun, kRun);
    }
  }
}

status paged_cache::fill(core::thread_pool& pool, const cache_content& content) {
  std::vector<std::byte> image(layer_bytes());
  for (std::uint64_t layer = 0; layer < layers_.size(); ++layer) {
    pool.run(pool.size(), [&](unsigned worker) {
      for (std::uint64_t page = worker; page < pools_.layout.n_blocks; page += pool.size()) {
        put_page(content, 2 * layer, page, page, image);
        put_page(content, 2 * layer + 1, page, page, image);
      }
    });
    TERSOR_CHECK(upload(layers_[layer].data(), image));
  }
  return {};
}

status paged_cache::poison() {
  for (device_buffer& layer : layers_) TERSOR_CHECK(layer.fill(kPagePoison));
  return {};
}

status paged_cache::expect_pages(core::thread_pool& pool, const cache_content& content,
                                 std::span<const std::int32_t> from, std::span<const std::int32_t> to,
                                 const std::string& what) const {
  std::vector<std::byte> image(layer_bytes());
  for (std::uint64_t layer = 0; layer < layers_.size(); ++layer) {
    std::fill(image.begin(), image.end(), std::byte{kPagePoison});
    pool.run(pool.size(), [&](unsigned worker) {
      for (std::uint64_t i = worker; i < from.size(); i += pool.size()) {
        for (const std::uint64_t which : {2 * layer, 2 * layer + 1}) {
          put_page(content, which, static_cast<std::uint64_t>(from[i]), static_cast<std::uint64_t>(to[i]),
                   image);
        }
      }
    });
    TERSOR_CHECK(expect_equal(layers_[layer].data(), image, what));
  }
  return {};
}

result<workload> gather(const gpu_env& env, const cache_content& content, std::span<const std::int32_t> ids,
                        std::uint64_t n_pools) {
  const std::uint64_t pool_bytes = ids.size() * kPageBytes;
  workload work{.data = content.data + ", contiguous pages"};
  work.bytes.resize(n_pools * pool_bytes);
  std::vector<std::string> names;
  for (std::uint64_t p = 0; p < n_pools; ++p) {
    work.segments.push_back({.offset = p * pool_bytes, .n_bytes = pool_bytes});
    names.push_back("pool " + std::to_string(p));
    env.pool.run(env.pool.size(), [&](unsigned worker) {
      for (std::uint64_t i = worker; i < ids.size(); i += env.pool.size()) {
        content.copy_page(p, static_cast<std::uint64_t>(ids[i]),
                          std::span(work.bytes).subspan(p * pool_bytes + i * kPageBytes, kPageBytes));
      }
    });
  }
  work.shape = {ids.size(), kPageTokens, kPageHeads, kPageDim};
  TERSOR_CHECK(calibrate_segments(env.cpu, env.options.calibration_input, dtype::bf16, names, work.bytes,
                                  work.segments));
  return work;
}

}  // namespace tersor::bench
