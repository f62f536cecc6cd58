// The paged-KV calls: argument checks, planning, launches of up to kMaxPools pools.
#include <algorithm>

#include "core/checked.hpp"
#include "cuda/kv/bounds.hpp"
#include "cuda/runtime/calls.hpp"

namespace tersor::cuda::kv {
namespace {

struct page_plan {
  frame_plan frame;
  page_geometry pages;
  std::uint32_t n_frames = 1;  ///< of a pool
};

result<page_plan> plan_of(codec c, const page_pools& pools, page_frames kind, std::uint32_t n_pages,
                          std::uint64_t frame_bytes) {
  const page_layout& l = pools.layout;
  if (pools.pools.empty()) return fail(errc::invalid_argument, "no pools");
  for (const void* pool : pools.pools) {
    if (pool == nullptr) return fail(errc::invalid_argument, "a pool's address is null");
  }
  if (n_pages == 0) return fail(errc::invalid_argument, "no pages");
  const std::array<std::uint64_t, 4> shape = {n_pages, l.block_size, l.kv_heads, l.head_dim};
  const std::span<const std::uint64_t> all(shape);
  page_plan plan;
  TERSOR_TRY(plan.frame,
             plan_frame(c, l.type, kind == page_frames::slots ? all.subspan(1) : all, frame_bytes));
  TERSOR_TRY(plan.pages, plan_pages(l, plan.frame.shape.n_values, pools.pools));
  plan.n_frames = kind == page_frames::slots ? n_pages : 1;
  if (std::uint64_t{plan.n_frames} * plan.frame.shape.n_chunks > 0x7fffffff) {
    return fail(errc::unsupported, "more than 2^31 chunks in a pool");
  }
  return plan;
}

/// Where the parts of a page call's workspace lie, from kScratchAt on.
struct page_scratch {
  std::uint64_t order_at = 0;  ///< block sums
  std::uint64_t waiting_at = 0;
  std::uint64_t cleared_bytes = 0;
  std::uint64_t n_bytes = 0;
  std::uint32_t order_blocks = 1;
  std::uint64_t waiting_stride = 0;  ///< words
};

page_scratch scratch_of(const page_plan& plan, std::uint64_t n_pools, tail_order order) {
  constexpr std::uint64_t kAlignment = 128;
  const std::uint64_t frames = std::min<std::uint64_t>(n_pools, kMaxPools) * plan.n_frames;
  page_scratch s;
  s.n_bytes = core::align_up(frames * sizeof(frame_totals), kAlignment);
  s.cleared_bytes = s.n_bytes;
  if (order == tail_order::free) return s;
  s.order_blocks = static_cast<std::uint32_t>(core::ceil_div(plan.frame.shape.n_chunks, kOrderChunks));
  s.order_at = s.n_bytes;
  s.n_bytes += core::align_up(frames * s.order_blocks * 4, kAlignment);
  s.cleared_bytes = s.n_bytes;
  s.waiting_at = s.n_bytes;
  s.waiting_stride = core::align_up(plan.frame.worst_tail_words, 4);
  s.n_bytes += frames * s.waiting_stride * 4;
  return s;
}

/// What all page launches have in common; `first` = first pool of the launch.
page_launch launch_of(const page_plan& plan, const page_pools& pools, const page_list& pages,
                      std::size_t first, std::uint64_t ctas_at_once) {
  page_launch launch;
  launch.n_groups = static_cast<std::uint32_t>(std::min<std::size_t>(pools.pools.size() - first, kMaxPools));
  for (std::uint32_t g = 0; g < launch.n_groups; ++g)
    launch.pools[g] = static_cast<std::uint8_t*>(pools.pools[first + g]);
  launch.pages = plan.pages;
  launch.shape = plan.frame.shape;
  std::copy_n(plan.frame.header, kHeaderWords, launch.header);
  launch.page_ids = pages.ids_dev;
  launch.n_frames = plan.n_frames;
  launch.n_pages = plan.n_frames == 1 ? pages.n_pages : 1;
  const std::uint64_t chunks = std::uint64_t{plan.n_frames} * plan.frame.shape.n_chunks;
  launch.ctas_per_group = ctas_of_group(ctas_at_once, launch.n_groups, chunks);
  return launch;
}

void set_store(page_launch& launch, const page_plan& plan, const page_store& store, const page_layout& layout,
               frame_result* results, std::size_t first) {
  const std::uint64_t number = first * plan.n_frames;
  launch.frames = static_cast<std::uint8_t*>(store.frames_dev) + number * store.frame_stride;
  launch.frame_stride = store.frame_stride;
  launch.results = reinterpret_cast<result_slot*>(results) + number;
  launch.overflow = static_cast<std::uint8_t*>(store.overflow_dev);
  launch.overflow_stride = raw_frame_bytes(layout);
  launch.overflow_used = store.overflow_used_dev;
  launch.overflow_places = store.overflow_places;
}

status check_arguments(const page_list& pages, const page_store& store, const frame_result* results) {
  if (pages.ids_dev == nullptr) return fail(errc::invalid_argument, "the page ids' address is null");
  TERSOR_CHECK(check_frame_address(store.frames_dev));
  if (store.frame_stride % 128 != 0)
    return fail(errc::invalid_argument, "the frame stride is not a multiple of 128");
  if (results == nullptr) return fail(errc::invalid_argument, "the results' address is null");
  if (store.overflow_dev != nullptr) {
    TERSOR_CHECK(check_frame_address(store.overflow_dev));
    if (store.kind != page_frames::slots)
      return fail(errc::invalid_argument, "only slots have an overflow area");
  }
  return {};
}

/// Slots may be small, but not so small that no page fits.
status check_size(const page_plan& plan, const page_store& store) {
  const std::uint64_t tails = plan.frame.shape.tails;
  const std::uint64_t needed =
      store.kind == page_frames::slots ? tails : tails + 4 * plan.frame.worst_tail_words;
  if (store.frame_stride >= needed) return {};
  return fail(errc::destination_too_small, "a frame needs " + std::to_string(needed) +
                                               " bytes, the frame stride is " +
                                               std::to_string(store.frame_stride));
}

std::uint32_t overflow_ctas(const page_launch& launch, std::uint64_t at_once) {
  return static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(core::ceil_div(at_once, launch.n_groups), 1, launch.n_frames));
}

struct call {
  const gpu_backend& backend;
  codec c;
  dtype type;
  std::uint64_t at_once;  ///< CTAs
  std::byte* scratch;
  stream s;
};

status encode_pools(const call& k, page_launch& launch, const page_scratch& scratch, tail_order order) {
  launch.totals = reinterpret_cast<frame_totals*>(k.scratch);
  TERSOR_CHECK(check_launch(k.backend, k.backend.clear(k.scratch, scratch.cleared_bytes, k.s),
                            "clearing the workspace"));
  if (order == tail_order::canonical) {
    launch.order_words = reinterpret_cast<std::uint32_t*>(k.scratch + scratch.order_at);
    launch.order_blocks = scratch.order_blocks;
    launch.waiting = reinterpret_cast<std::uint32_t*>(k.scratch + scratch.waiting_at);
    launch.waiting_stride = scratch.waiting_stride;
  }
  TERSOR_CHECK(check_launch(
      k.backend, k.backend.encode_pages(k.c, k.type, launch, launch.n_groups * launch.ctas_per_group, k.s),
      "encoding pages"));
  if (order == tail_order::canonical) {
    page_launch ordering = launch;
    ordering.ctas_per_group = launch.n_frames * launch.order_blocks;
    TERSOR_CHECK(check_launch(
        k.backend, k.backend.order_pages(ordering, ordering.n_groups * ordering.ctas_per_group, k.s),
        "ordering tails"));
  }
  if (launch.overflow == nullptr) return {};
  page_launch spill = launch;
  spill.ctas_per_group = overflow_ctas(launch, k.at_once);
  return check_launch(k.backend,
                      k.backend.store_overflow(k.type, spill, spill.n_groups * spill.ctas_per_group, k.s),
                      "storing pages that overflow");
}

status decode_pools(const call& k, page_launch& launch, const page_scratch& scratch) {
  launch.totals = reinterpret_cast<frame_totals*>(k.scratch);
  TERSOR_CHECK(check_launch(k.backend, k.backend.clear(k.scratch, scratch.cleared_bytes, k.s),
                            "clearing the workspace"));
  TERSOR_CHECK(check_launch(
      k.backend, k.backend.decode_pages(k.c, k.type, launch, launch.n_groups * launch.ctas_per_group, k.s),
      "decoding pages"));
  if (launch.where == nullptr) return {};
  page_launch fetch = launch;
  fetch.ctas_per_group = overflow_ctas(launch, k.at_once);
  return check_launch(k.backend,
                      k.backend.load_overflow(k.type, fetch, fetch.n_groups * fetch.ctas_per_group, k.s),
                      "loading pages that overflowed");
}

}  // namespace

std::uint64_t pages_workspace_size(codec c, const page_pools& pools, page_frames kind, std::uint32_t n_pages,
                                   tail_order order) noexcept {
  const auto plan = plan_of(c, pools, kind, n_pages, 0);
  return plan ? kScratchAt + scratch_of(*plan, pools.pools.size(), order).n_bytes : 0;
}

status encode_pages_async(codec c, const page_pools& pools, const page_list& pages,
                          const std::uint8_t* codebooks_dev, const page_store& store,
                          frame_result* results_dev, tail_order order, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_TRY(const page_plan plan, plan_of(c, pools, store.kind, pages.n_pages, store.frame_stride));
  TERSOR_CHECK(check_arguments(pages, store, results_dev));
  TERSOR_CHECK(check_size(plan, store));
  if (codebooks_dev == nullptr || reinterpret_cast<std::uintptr_t>(codebooks_dev) % 16 != 0) {
    return fail(errc::invalid_argument, "the codebooks' address is null or not 16-byte aligned");
  }
  if (store.overflow_dev != nullptr && store.overflow_used_dev == nullptr) {
    return fail(errc::invalid_argument, "an overflow area needs its counter");
  }
  const page_scratch scratch = scratch_of(plan, pools.pools.size(), order);
  TERSOR_CHECK(check_workspace(ws, kScratchAt + scratch.n_bytes));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  const call k{*backend,
               c,
               pools.layout.type,
               std::uint64_t{processors} * kPageCtas,
               static_cast<std::byte*>(ws.data_dev) + kScratchAt,
               s};
  for (std::size_t first = 0; first < pools.pools.size(); first += kMaxPools) {
    page_launch launch = launch_of(plan, pools, pages, first, k.at_once);
    set_store(launch, plan, store, pools.layout, results_dev, first);
    launch.codebooks = codebooks_dev + 16 * first;
    TERSOR_CHECK(encode_pools(k, launch, scratch, order));
  }
  return {};
}

status decode_pages_async(codec c, const page_pools& pools, const page_list& pages, const page_store& store,
                          const frame_result* where_dev, frame_result* results_dev, const workspace& ws,
                          stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_TRY(const page_plan plan, plan_of(c, pools, store.kind, pages.n_pages, store.frame_stride));
  TERSOR_CHECK(check_arguments(pages, store, results_dev));
  TERSOR_CHECK(check_size(plan, store));
  if (where_dev == results_dev)
    return fail(errc::invalid_argument, "the results of encoding and of decoding are two arrays");
  const page_scratch scratch = scratch_of(plan, pools.pools.size(), tail_order::free);
  TERSOR_CHECK(check_workspace(ws, kScratchAt + scratch.n_bytes));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  const call k{*backend,
               c,
               pools.layout.type,
               std::uint64_t{processors} * kPageCtas,
               static_cast<std::byte*>(ws.data_dev) + kScratchAt,
               s};
  for (std::size_t first = 0; first < pools.pools.size(); first += kMaxPools) {
    page_launch launch = launch_of(plan, pools, pages, first, k.at_once);
    set_store(launch, plan, store, pools.layout, results_dev, first);
    if (where_dev != nullptr)
      launch.where = reinterpret_cast<const result_slot*>(where_dev) + first * plan.n_frames;
    TERSOR_CHECK(decode_pools(k, launch, scratch));
  }
  return {};
}

std::uint64_t codebooks_workspace_size(const page_pools& pools) noexcept {
  return kScratchAt + std::min<std::uint64_t>(pools.pools.size(), kMaxPools) * kCountsBytes;
}

status make_codebooks_async(codec c, const page_pools& pools, const page_list& pages,
                            std::uint8_t* codebooks_dev, const workspace& ws, stream s) {
  TERSOR_TRY(const gpu_backend* backend, need_backend());
  TERSOR_TRY(const page_plan plan, plan_of(c, pools, page_frames::gathered, pages.n_pages, 0));
  if (pages.ids_dev == nullptr || codebooks_dev == nullptr ||
      reinterpret_cast<std::uintptr_t>(codebooks_dev) % 16 != 0) {
    return fail(errc::invalid_argument, "the page ids' or the codebooks' address is null or not aligned");
  }
  TERSOR_CHECK(check_workspace(ws, codebooks_workspace_size(pools)));
  TERSOR_TRY(const std::uint32_t processors, need_multiprocessors(*backend));
  std::byte* counts = static_cast<std::byte*>(ws.data_dev) + kScratchAt;
  for (std::size_t first = 0; first < pools.pools.size(); first += kMaxPools) {
    const page_launch launch = launch_of(plan, pools, pages, first, std::uint64_t{processors} * kCountCtas);
    TERSOR_CHECK(check_launch(*backend, backend->clear(counts, launch.n_groups * kCountsBytes, s),
                              "clearing the workspace"));
    const codebook_request to{counts, codebooks_dev + 16 * first, c == codec::rank ? 16u : 15u};
    TERSOR_CHECK(check_launch(
        *backend,
        backend->count_pages(pools.layout.type, launch, to, launch.n_groups * launch.ctas_per_group, s),
        "counting symbols"));
  }
  return {};
}

}  // namespace tersor::cuda::kv
