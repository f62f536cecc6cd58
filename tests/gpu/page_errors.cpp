// Wrong arguments of the calls on pages.
#include <algorithm>

#include "cache.hpp"
#include "error_cases.hpp"

namespace gpu_test {
namespace {

namespace kv = tersor::cuda::kv;
using tersor::codec;
using tersor::dtype;
using tersor::errc;
using tersor::cuda::frame_result;
using tersor::cuda::tail_order;
using tersor::cuda::workspace;

constexpr auto kArgument = {errc::invalid_argument};
constexpr auto kUnsupported = {errc::unsupported, errc::invalid_argument};
constexpr auto kTooSmall = {errc::destination_too_small, errc::invalid_argument};

struct good_pages {
  cache from{{.n_layers = 1, .n_blocks = 4, .heads = 2}, 5};
  device_memory ids{8}, books{64}, frames{1 << 20}, results{4096}, work_dev;
  codec c = codec::rank;
  kv::page_pools pools = from.pools();
  kv::page_list list;
  kv::page_store store;
  const std::uint8_t* books_dev = nullptr;
  frame_result* results_dev = nullptr;
  workspace work;

  good_pages() {
    ids.fill(0, 8, 0);
    books.fill(0, 64, 0);
    frames.fill(0, frames.size(), kGuard);
    results.fill(0, results.size(), kGuard);
    list = {.ids_dev = ids.as<const std::int32_t>(), .n_pages = 2};
    books_dev = books.get();
    results_dev = results.as<frame_result>();
    const std::uint64_t bound =
        (kv::page_frame_bound(c, pools.layout, kv::page_frames::gathered, 2) + 127) / 128 * 128;
    store = {.frames_dev = frames.get(), .frame_stride = bound};
    const std::uint64_t size =
        std::max(kv::pages_workspace_size(c, pools, store.kind, 2, tail_order::canonical),
                 kv::codebooks_workspace_size(pools));
    work_dev.grow(size);
    work_dev.fill(0, size, 0);
    work = {.data_dev = work_dev.get(), .n_bytes = size};
  }
  [[nodiscard]] tersor::status encode() const {
    return kv::encode_pages_async(c, pools, list, books_dev, store, results_dev, tail_order::canonical, work,
                                  nullptr);
  }
  [[nodiscard]] tersor::status decode() const {
    return kv::decode_pages_async(c, pools, list, store, nullptr, results_dev, work, nullptr);
  }
};

template <class Spoil>
void spoilt(section& s, std::initializer_list<errc> codes, const char* what, bool decoding,
            const Spoil& spoil) {
  good_pages g;
  spoil(g);
  expect_error(s, g.encode(), codes, std::string("encode pages: ") + what);
  if (decoding) expect_error(s, g.decode(), codes, std::string("decode pages: ") + what);
  must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  s.check(g.results.holds(0, g.results.size(), kGuard) && g.frames.holds(0, g.frames.size(), kGuard) &&
              g.from.device_agrees(),
          "a refused call launched something", what);
}

void call_errors(section& s) {
  spoilt(s, kArgument, "ids null", true, [](good_pages& g) { g.list.ids_dev = nullptr; });
  spoilt(s, kArgument, "frames null", true, [](good_pages& g) { g.store.frames_dev = nullptr; });
  spoilt(s, kArgument, "results null", true, [](good_pages& g) { g.results_dev = nullptr; });
  spoilt(s, kArgument, "codebooks null", false, [](good_pages& g) { g.books_dev = nullptr; });
  spoilt(s, kArgument, "frames misaligned", true,
         [](good_pages& g) { g.store.frames_dev = g.frames.get() + 8; });
  spoilt(s, kArgument, "no pools", true, [](good_pages& g) { g.pools.pools.clear(); });
  spoilt(s, kArgument, "a pool null", true, [](good_pages& g) { g.pools.pools[1] = nullptr; });
  spoilt(s, kTooSmall, "frame stride no multiple of 128", true,
         [](good_pages& g) { g.store.frame_stride += 64; });
  spoilt(s, kTooSmall, "frame stride that holds no frame", true,
         [](good_pages& g) { g.store.frame_stride = 128; });
  spoilt(s, kUnsupported, "raw", true, [](good_pages& g) { g.c = codec::raw; });
  spoilt(s, kUnsupported, "F32", true, [](good_pages& g) { g.pools.layout.type = dtype::f32; });
  spoilt(s, kTooSmall, "workspace too small", true, [](good_pages& g) { g.work.n_bytes = 15; });
  spoilt(s, kTooSmall, "no workspace", true, [](good_pages& g) { g.work = {}; });
}

void pool_errors(section& s) {
  const auto expect = [&](const auto& made, std::initializer_list<errc> codes, const char* what) {
    s.check(!made && std::ranges::find(codes, made.error().code) != codes.end(),
            "make_pools took wrong arguments", what);
  };
  constexpr auto kNhd = kv::pool_order::kv_blocks_nhd;
  device_memory memory(64);
  void* const good[] = {memory.get()};
  void* const null[] = {nullptr};
  expect(kv::make_pools(kNhd, dtype::bf16, {}, 4, 16, 2, 64), kArgument, "no layers");
  expect(kv::make_pools(kNhd, dtype::bf16, null, 4, 16, 2, 64), kArgument, "a layer null");
  expect(kv::make_pools(kNhd, dtype::f32, good, 4, 16, 2, 64), kUnsupported, "F32");
  expect(kv::make_pools(kNhd, dtype::bf16, good, 0, 16, 2, 64), kArgument, "no blocks");
  expect(kv::make_pools(kNhd, dtype::bf16, good, 4, 0, 2, 64), kArgument, "no tokens");
  expect(kv::make_pools(kNhd, dtype::bf16, good, 4, 16, 0, 64), kArgument, "no heads");
  expect(kv::make_pools(kNhd, dtype::bf16, good, 4, 16, 2, 0), kArgument, "no dimension");
  expect(kv::make_pools(kNhd, dtype::bf16, good, std::uint64_t{1} << 60, 16, 2, 64), {errc::size_overflow},
         "too many blocks");
  expect(kv::make_pools(kNhd, dtype::bf16, good, 4, ~0u, ~0u, ~0u), {errc::size_overflow}, "too large pages");
  expect(kv::make_pools(kv::pool_order::mla, dtype::bf16, good, 4, 16, 2, 576), kArgument, "MLA with heads");
  expect(kv::make_separate_pools(false, dtype::bf16, {}, 4, 16, 2, 64), kArgument, "no separate pools");
}

}  // namespace

void page_errors(section& s) {
  call_errors(s);
  pool_errors(s);
}

}  // namespace gpu_test
