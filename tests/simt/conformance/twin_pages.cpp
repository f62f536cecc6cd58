#include "twin_pages.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include <gtest/gtest.h>

#include "simt/random.hpp"

namespace twin {

using tersor::cuda::frame_result;

std::string pool_choice::text() const {
  return std::string(tersor::to_string(type)) + " order " + std::to_string(static_cast<int>(order)) + ", " +
         std::to_string(block_size) + " tokens x " + std::to_string(kv_heads) + " heads x " +
         std::to_string(head_dim);
}

namespace {

std::size_t layer_bytes(const pool_choice& c) {
  const std::size_t parts = c.order == kv::pool_order::mla ? 1 : 2;
  return parts * c.n_blocks * c.block_size * c.kv_heads * c.head_dim * tersor::value_bytes(c.type);
}

void finish(pool_memory& m, const pool_choice& c) {
  const std::vector<void*> layers(m.layers.begin(), m.layers.end());
  auto pools = kv::make_pools(c.order, c.type, layers, c.n_blocks, c.block_size, c.kv_heads, c.head_dim);
  ASSERT_TRUE(pools.has_value()) << pools.error().describe();
  m.pools = std::move(*pools);
}

}  // namespace

pool_memory make_filled(device& d, const pool_choice& choice, kind k, std::uint64_t seed) {
  pool_memory m;
  m.layer_bytes = layer_bytes(choice);
  for (std::uint32_t i = 0; i < choice.n_layers; ++i) {
    const bytes data = make_data(choice.type, m.layer_bytes / tersor::value_bytes(choice.type), k, seed + i);
    m.layers.push_back(d.upload(data, "pool", choice.offset));
  }
  finish(m, choice);
  return m;
}

pool_memory make_empty(device& d, const pool_choice& choice) {
  pool_memory m;
  m.layer_bytes = layer_bytes(choice);
  for (std::uint32_t i = 0; i < choice.n_layers; ++i)
    m.layers.push_back(d.reserve(m.layer_bytes, "pool", choice.offset));
  finish(m, choice);
  return m;
}

std::byte* value_at(const pool_memory& m, std::size_t pool, std::uint64_t page, std::uint64_t token,
                    std::uint64_t head, std::uint64_t i) {
  const kv::page_layout& l = m.pools.layout;
  return static_cast<std::byte*>(m.pools.pools[pool]) +
         (page * l.page_stride + token * l.token_stride + head * l.head_stride + i * l.value_stride) *
             tersor::value_bytes(l.type);
}

bytes gather(const pool_memory& m, std::size_t pool, std::span<const std::int32_t> ids) {
  const kv::page_layout& l = m.pools.layout;
  const std::size_t width = tersor::value_bytes(l.type);
  bytes out;
  out.reserve(ids.size() * l.page_values() * width);
  for (const std::int32_t id : ids) {
    for (std::uint32_t token = 0; token < l.block_size; ++token) {
      for (std::uint32_t head = 0; head < l.kv_heads; ++head) {
        for (std::uint32_t i = 0; i < l.head_dim; ++i) {
          const std::byte* at = value_at(m, pool, static_cast<std::uint64_t>(id), token, head, i);
          out.insert(out.end(), at, at + width);
        }
      }
    }
  }
  return out;
}

void expect_only_pages(device& d, const pool_memory& m, std::span<const std::int32_t> ids) {
  const kv::page_layout& l = m.pools.layout;
  for (std::size_t pool = 0; pool < m.pools.pools.size(); ++pool) {
    for (std::uint64_t page = 0; page < l.n_blocks; ++page) {
      const bool chosen = std::ranges::find(ids, static_cast<std::int32_t>(page)) != ids.end();
      // Both ends of every token and head; gather() has looked at the rest of the chosen ones.
      for (std::uint32_t token = 0; token < l.block_size; ++token) {
        for (std::uint32_t head = 0; head < l.kv_heads; ++head) {
          ASSERT_EQ(d.is_written(value_at(m, pool, page, token, head, 0)), chosen) << "page " << page;
          ASSERT_EQ(d.is_written(value_at(m, pool, page, token, head, l.head_dim - 1)), chosen)
              << "page " << page;
        }
      }
    }
  }
}

std::vector<std::uint64_t> shape_of(const pool_choice& choice, kv::page_frames kind, std::uint64_t n_pages) {
  std::vector<std::uint64_t> shape = {choice.block_size, choice.kv_heads, choice.head_dim};
  if (kind == kv::page_frames::gathered) shape.insert(shape.begin(), n_pages);
  return shape;
}

std::vector<std::int32_t> shuffled_ids(const pool_choice& choice, std::size_t n, std::uint64_t seed) {
  std::vector<std::int32_t> ids(choice.n_blocks);
  std::iota(ids.begin(), ids.end(), 0);
  simt::random r(seed);
  for (std::size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[r.below(i)]);
  ids.resize(n);
  return ids;
}

const std::int32_t* upload_ids(device& d, std::span<const std::int32_t> ids) {
  return reinterpret_cast<const std::int32_t*>(d.upload(std::as_bytes(ids), "page ids"));
}

page_frames_memory encode_pages(device& d, const pool_memory& from, std::span<const std::int32_t> ids,
                                const store_choice& choice) {
  const std::size_t n_pools = from.pools.pools.size();
  const kv::page_list pages{upload_ids(d, ids), static_cast<std::uint32_t>(ids.size())};
  page_frames_memory m;
  m.n_frames = n_pools * (choice.kind == kv::page_frames::slots ? ids.size() : 1);
  m.store.kind = choice.kind;
  m.store.frame_stride = choice.stride != 0
                             ? choice.stride
                             : kv::page_frame_bound(choice.c, from.pools.layout, choice.kind, pages.n_pages);
  m.frames = d.reserve(m.n_frames * m.store.frame_stride, "frames");
  m.store.frames_dev = m.frames;
  m.results = d.reserve_array<frame_result>(m.n_frames, "results");
  if (choice.overflow) {
    // No address may be null, even of an area without places.
    m.overflow = d.reserve(choice.overflow_places * kv::raw_frame_bytes(from.pools.layout), "overflow area");
    m.store.overflow_dev = m.overflow;
    m.store.overflow_places = choice.overflow_places;
    const std::array<std::byte, 4> zero = {};
    m.store.overflow_used_dev = reinterpret_cast<std::uint32_t*>(d.upload_writable(zero, "overflow counter"));
  }
  auto* books = reinterpret_cast<std::uint8_t*>(d.reserve(16 * n_pools, "codebooks"));
  const auto counting = d.reserve_workspace(kv::codebooks_workspace_size(from.pools));
  const auto counted = kv::make_codebooks_async(choice.c, from.pools, pages, books, counting, nullptr);
  EXPECT_TRUE(counted.has_value()) << counted.error().describe();
  const auto ws = d.reserve_workspace(
      kv::pages_workspace_size(choice.c, from.pools, choice.kind, pages.n_pages, choice.order));
  const auto call = kv::encode_pages_async(choice.c, from.pools, pages, books, m.store, m.results,
                                           choice.order, ws, nullptr);
  EXPECT_TRUE(call.has_value()) << call.error().describe();
  d.expect_ready(counting);
  d.expect_ready(ws);
  return m;
}

std::vector<frame_result> decode_pages(device& d, tersor::codec c, const pool_memory& to,
                                       std::span<const std::int32_t> ids, const page_frames_memory& frames,
                                       const frame_result* where_dev) {
  const kv::page_list pages{upload_ids(d, ids), static_cast<std::uint32_t>(ids.size())};
  kv::page_store store = frames.store;
  // What encoding left unwritten is garbage, as a slot's end is.
  store.frames_dev = d.upload({frames.frames, frames.n_frames * store.frame_stride}, "frames");
  auto* results = d.reserve_array<frame_result>(frames.n_frames, "results");
  const auto ws = d.reserve_workspace(
      kv::pages_workspace_size(c, to.pools, store.kind, pages.n_pages, tersor::cuda::tail_order::free));
  const auto call = kv::decode_pages_async(c, to.pools, pages, store, where_dev, results, ws, nullptr);
  EXPECT_TRUE(call.has_value()) << call.error().describe();
  std::vector<frame_result> out;
  if (!call) return out;
  d.expect_ready(ws);
  for (std::size_t f = 0; f < frames.n_frames; ++f) out.push_back(d.download_value(results + f));
  return out;
}

}  // namespace twin
