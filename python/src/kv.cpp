// Paged KV caches on the GPU.
#include <algorithm>
#include <array>

#include "device.hpp"

namespace tersor::python {
namespace {

namespace kv = cuda::kv;

kv::pool_order pool_order_of(std::string_view name) {
  constexpr std::array<std::string_view, 5> kNames = {"kv_blocks_nhd", "blocks_kv_nhd", "kv_blocks_hnd",
                                                      "blocks_kv_hnd", "mla"};
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    raise({.code = errc::invalid_argument,
           .message = "unknown pool order '" + std::string(name) +
                      "'; kv_blocks_nhd, blocks_kv_nhd, kv_blocks_hnd, blocks_kv_hnd and mla are known"});
  }
  return static_cast<kv::pool_order>(found - kNames.begin());
}

kv::page_frames frames_of(std::string_view kind) {
  if (kind == "gathered") return kv::page_frames::gathered;
  if (kind == "slots") return kv::page_frames::slots;
  raise({.code = errc::invalid_argument,
         .message = "unknown kind of page frames '" + std::string(kind) + "'; gathered and slots are known"});
}

std::vector<void*> pointers(const std::vector<address>& addresses) {
  std::vector<void*> all(addresses.size());
  std::transform(addresses.begin(), addresses.end(), all.begin(), [](address a) { return pointer(a); });
  return all;
}

kv::page_list pages_of(address ids, std::uint32_t n) {
  return {pointer<const std::int32_t>(ids), n};
}

void bind_pools(nb::module_& m) {
  nb::class_<kv::page_pools>(m, "PagePools",
                             "Addresses of the K and V pools of all layers, and how their values lie.")
      .def(
          "__init__",
          [](kv::page_pools* self, std::string_view order, std::string_view type,
             const std::vector<address>& layers, std::uint64_t n_blocks, std::uint32_t block_size,
             std::uint32_t kv_heads, std::uint32_t head_dim) {
            new (self)
                kv::page_pools(unwrap(kv::make_pools(pool_order_of(order), dtype_of(type), pointers(layers),
                                                     n_blocks, block_size, kv_heads, head_dim)));
          },
          nb::arg("order"), nb::arg("dtype"), nb::arg("layers"), nb::arg("n_blocks"), nb::arg("block_size"),
          nb::arg("kv_heads"), nb::arg("head_dim"))
      .def_static(
          "separate",
          [](bool hnd, std::string_view type, const std::vector<address>& pools, std::uint64_t n_blocks,
             std::uint32_t block_size, std::uint32_t kv_heads, std::uint32_t head_dim) {
            return unwrap(kv::make_separate_pools(hnd, dtype_of(type), pointers(pools), n_blocks, block_size,
                                                  kv_heads, head_dim));
          },
          nb::arg("hnd"), nb::arg("dtype"), nb::arg("pools"), nb::arg("n_blocks"), nb::arg("block_size"),
          nb::arg("kv_heads"), nb::arg("head_dim"))
      .def_prop_ro("n_pools", [](const kv::page_pools& p) { return p.pools.size(); })
      .def_prop_ro("page_values", [](const kv::page_pools& p) { return p.layout.page_values(); })
      .def_prop_ro("raw_frame_bytes", [](const kv::page_pools& p) { return kv::raw_frame_bytes(p.layout); });
  nb::class_<kv::page_store>(m, "PageStore", "Where frames of pages lie in device memory.")
      .def(
          "__init__",
          [](kv::page_store* self, std::string_view kind, address frames, std::uint64_t frame_stride,
             address overflow, std::uint32_t overflow_places, address overflow_used) {
            new (self) kv::page_store{.kind = frames_of(kind),
                                      .frames_dev = pointer(frames),
                                      .frame_stride = frame_stride,
                                      .overflow_dev = pointer(overflow),
                                      .overflow_places = overflow_places,
                                      .overflow_used_dev = pointer<std::uint32_t>(overflow_used)};
          },
          nb::arg("kind"), nb::arg("frames"), nb::arg("frame_stride"), nb::arg("overflow") = 0,
          nb::arg("overflow_places") = 0, nb::arg("overflow_used") = 0);
}

void bind_sizes(nb::module_& m) {
  m.def(
      "page_frame_bound",
      [](std::string_view c, const kv::page_pools& pools, std::string_view kind, std::uint32_t n_pages) {
        return kv::page_frame_bound(codec_of(c), pools.layout, frames_of(kind), n_pages);
      },
      nb::arg("codec"), nb::arg("pools"), nb::arg("kind"), nb::arg("n_pages"));
  m.def(
      "suggest_slot_bytes",
      [](const std::vector<std::uint64_t>& frame_bytes, double coverage) {
        return kv::suggest_slot_bytes(frame_bytes, coverage);
      },
      nb::arg("frame_bytes"), nb::arg("coverage"));
  m.def(
      "pages_workspace_size",
      [](std::string_view c, const kv::page_pools& pools, std::string_view kind, std::uint32_t n_pages,
         bool canonical) {
        return kv::pages_workspace_size(codec_of(c), pools, frames_of(kind), n_pages, tails_of(canonical));
      },
      nb::arg("codec"), nb::arg("pools"), nb::arg("kind"), nb::arg("n_pages"), nb::arg("canonical"));
  m.def("codebooks_workspace_size", &kv::codebooks_workspace_size, nb::arg("pools"));
  m.def(
      "worth_it",
      [](std::uint64_t n_bytes, double link_gb_s, std::string_view c, std::string_view device_name) {
        return kv::worth_it(n_bytes, link_gb_s, codec_of(c), device_name);
      },
      nb::arg("n_bytes"), nb::arg("link_gb_s"), nb::arg("codec"), nb::arg("device_name"));
}

void bind_pages(nb::module_& m) {
  m.def(
      "encode_pages",
      [](std::string_view c, const kv::page_pools& pools, address ids, std::uint32_t n_pages, address books,
         const kv::page_store& store, address results, bool canonical, address ws, std::uint64_t ws_bytes,
         address stream) {
        check(kv::encode_pages_async(codec_of(c), pools, pages_of(ids, n_pages),
                                     pointer<const std::uint8_t>(books), store,
                                     pointer<cuda::frame_result>(results), tails_of(canonical),
                                     {pointer(ws), ws_bytes}, stream_of(stream)));
      },
      nb::arg("codec"), nb::arg("pools"), nb::arg("page_ids"), nb::arg("n_pages"), nb::arg("codebooks"),
      nb::arg("store"), nb::arg("results"), nb::arg("canonical"), nb::arg("ws"), nb::arg("ws_bytes"),
      nb::arg("stream"));
  m.def(
      "decode_pages",
      [](std::string_view c, const kv::page_pools& pools, address ids, std::uint32_t n_pages,
         const kv::page_store& store, address where, address results, address ws, std::uint64_t ws_bytes,
         address stream) {
        check(kv::decode_pages_async(
            codec_of(c), pools, pages_of(ids, n_pages), store, pointer<const cuda::frame_result>(where),
            pointer<cuda::frame_result>(results), {pointer(ws), ws_bytes}, stream_of(stream)));
      },
      nb::arg("codec"), nb::arg("pools"), nb::arg("page_ids"), nb::arg("n_pages"), nb::arg("store"),
      nb::arg("where"), nb::arg("results"), nb::arg("ws"), nb::arg("ws_bytes"), nb::arg("stream"));
  m.def(
      "make_codebooks",
      [](std::string_view c, const kv::page_pools& pools, address ids, std::uint32_t n_pages, address books,
         address ws, std::uint64_t ws_bytes, address stream) {
        check(kv::make_codebooks_async(codec_of(c), pools, pages_of(ids, n_pages),
                                       pointer<std::uint8_t>(books), {pointer(ws), ws_bytes},
                                       stream_of(stream)));
      },
      nb::arg("codec"), nb::arg("pools"), nb::arg("page_ids"), nb::arg("n_pages"), nb::arg("codebooks"),
      nb::arg("ws"), nb::arg("ws_bytes"), nb::arg("stream"));
}

}  // namespace

void bind_kv(nb::module_& m) {
  bind_pools(m);
  bind_sizes(m);
  bind_pages(m);
}

}  // namespace tersor::python
