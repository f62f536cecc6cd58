#include "cache.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace gpu_test {

using order = cache_shape::order;

std::uint64_t cache_shape::place(std::uint32_t pool, std::uint64_t page, std::uint32_t token,
                                 std::uint32_t head, std::uint32_t i) const {
  const std::uint64_t kv = pool % 2;
  const std::uint64_t nhd = (std::uint64_t{token} * heads + head) * dim + i;
  const std::uint64_t hnd = (std::uint64_t{head} * block_size + token) * dim + i;
  switch (how) {
    case order::kv_blocks_nhd:
      return (kv * n_blocks + page) * page_values() + nhd;
    case order::blocks_kv_nhd:
      return (page * 2 + kv) * page_values() + nhd;
    case order::kv_blocks_hnd:
      return (kv * n_blocks + page) * page_values() + hnd;
    case order::blocks_kv_hnd:
      return (page * 2 + kv) * page_values() + hnd;
    case order::separate_hnd:
      return page * page_values() + hnd;
    default:
      return page * page_values() + nhd;
  }
}

std::string cache_shape::text() const {
  constexpr const char* kNames[] = {"kv_blocks_nhd", "blocks_kv_nhd", "kv_blocks_hnd", "blocks_kv_hnd",
                                    "mla",           "separate_nhd",  "separate_hnd"};
  return std::string(kNames[static_cast<int>(how)]) + " " + std::string(tersor::to_string(type)) + " block " +
         std::to_string(block_size) + " heads " + std::to_string(heads) + " dim " + std::to_string(dim);
}

namespace {

/// Pages of several kinds, so that their frames differ in size.
bytes random_pages(const cache_shape& shape, std::uint64_t seed) {
  constexpr kind kCycle[] = {kind::normal, kind::lognormal_columns, kind::uniform_bits, kind::normal,
                             kind::constant};
  prng random(seed);
  bytes all;
  for (std::uint64_t at = 0; at < shape.tensor_values(); at += shape.page_values()) {
    const bytes page =
        make_data(shape.type, shape.page_values(), kCycle[random.below(std::size(kCycle))], random.next());
    all.insert(all.end(), page.begin(), page.end());
  }
  return all;
}

}  // namespace

cache::cache(const cache_shape& shape, std::uint64_t seed) : shape_(shape) {
  const std::uint64_t n_bytes = shape.tensor_values() * tersor::value_bytes(shape.type);
  const std::uint64_t before = kGuardBytes + shape.shift * tersor::value_bytes(shape.type);
  for (std::uint32_t t = 0; t < shape.n_tensors(); ++t) {
    host_.push_back(seed == 0 ? bytes(n_bytes, std::byte{kGuard}) : random_pages(shape, seed + t));
    device_memory memory(before + n_bytes + kGuardBytes);
    memory.fill(0, memory.size(), kGuard);
    memory.put(before, host_.back());
    device_.push_back(std::move(memory));
  }
  make_pools();
}

void cache::make_pools() {
  namespace kv = tersor::cuda::kv;
  std::vector<void*> tensors;
  for (const device_memory& memory : device_)
    tensors.push_back(memory.get() + kGuardBytes + shape_.shift * tersor::value_bytes(shape_.type));
  auto made = shape_.separate()
                  ? kv::make_separate_pools(shape_.how == order::separate_hnd, shape_.type, tensors,
                                            shape_.n_blocks, shape_.block_size, shape_.heads, shape_.dim)
                  : kv::make_pools(static_cast<kv::pool_order>(shape_.how), shape_.type, tensors,
                                   shape_.n_blocks, shape_.block_size, shape_.heads, shape_.dim);
  if (!made) {
    fault_ = made.error().describe();
  } else {
    pools_ = std::move(*made);
    if (pools_.pools.size() != shape_.n_pools()) fault_ = std::to_string(pools_.pools.size()) + " pools";
    if (pools_.layout.page_values() != shape_.page_values()) fault_ = "another number of values a page";
  }
}

/// Calls `visit(byte in the tensor, byte in the page)` for every value of a page.
template <class Visit>
void cache::visit_page(std::uint32_t pool, std::int32_t id, const Visit& visit) const {
  const std::uint64_t width = tersor::value_bytes(shape_.type);
  std::uint64_t at = 0;
  for (std::uint32_t token = 0; token < shape_.block_size; ++token) {
    for (std::uint32_t head = 0; head < shape_.heads; ++head) {
      for (std::uint32_t i = 0; i < shape_.dim; ++i, at += width)
        visit(shape_.place(pool, static_cast<std::uint64_t>(id), token, head, i) * width, at);
    }
  }
}

bytes cache::page(std::uint32_t pool, std::int32_t id) const {
  const std::uint64_t width = tersor::value_bytes(shape_.type);
  const bytes& tensor = host_[shape_.tensor_of(pool)];
  bytes values(shape_.page_values() * width);
  visit_page(pool, id,
             [&](std::uint64_t from, std::uint64_t to) { std::memcpy(&values[to], &tensor[from], width); });
  return values;
}

void cache::set_page(std::uint32_t pool, std::int32_t id, byte_view values) {
  const std::uint64_t width = tersor::value_bytes(shape_.type);
  bytes& tensor = host_[shape_.tensor_of(pool)];
  visit_page(pool, id,
             [&](std::uint64_t to, std::uint64_t from) { std::memcpy(&tensor[to], &values[from], width); });
}

bool cache::device_agrees(const std::vector<std::int32_t>& ignore) const {
  const std::uint64_t before = kGuardBytes + shape_.shift * tersor::value_bytes(shape_.type);
  std::vector<bytes> found;
  for (std::size_t t = 0; t < device_.size(); ++t) {
    if (!device_[t].holds(0, before, kGuard)) return false;
    if (!device_[t].holds(before + host_[t].size(), kGuardBytes, kGuard)) return false;
    found.push_back(device_[t].take(before, host_[t].size()));
  }
  for (std::uint32_t pool = 0; pool < shape_.n_pools(); ++pool) {
    const std::uint32_t t = shape_.tensor_of(pool);
    for (const std::int32_t id : ignore) {
      visit_page(pool, id, [&](std::uint64_t at, std::uint64_t) {
        std::memcpy(&found[t][at], &host_[t][at], tersor::value_bytes(shape_.type));
      });
    }
  }
  return found == host_;
}

std::vector<std::int32_t> shuffled_ids(std::uint32_t n_blocks, std::uint32_t n, prng& random) {
  std::vector<std::int32_t> ids(n_blocks);
  std::iota(ids.begin(), ids.end(), 0);
  for (std::size_t i = ids.size() - 1; i > 0; --i) std::swap(ids[i], ids[random.below(i + 1)]);
  ids.resize(n);
  return ids;
}

}  // namespace gpu_test
