// Requests between GPU memory and GPU or host memory through the transfer protocol over loopback.
#include <algorithm>
#include <chrono>

#include "rig.hpp"
#include "sections.hpp"
#include <tersor/device_transfer.hpp>

namespace gpu_test {
namespace {

using namespace tersor::transfer;
using tersor::dtype;
using tersor::errc;
namespace kv = tersor::cuda::kv;

/// A request and its values, region by region.
struct shipment {
  manifest what;
  std::vector<bytes> data;
  [[nodiscard]] std::vector<byte_view> views() const { return {data.begin(), data.end()}; }
};

shipment make_shipment(std::uint64_t request, dtype type, std::uint64_t n_values, bool with_book) {
  shipment s;
  s.what.request = request;
  for (std::uint32_t i = 0; i < 4; ++i) {
    s.data.push_back(make_data(type, n_values, kKinds[i % kKinds.size()], 100 * request + i));
    region r{.name = "region " + std::to_string(i),
             .layer = i / 2,
             .kind = i % 2 == 0 ? part_kind::key : part_kind::value,
             .type = type,
             .shape = {n_values},
             .page_bytes = 8192 * tersor::value_bytes(type)};
    if (with_book) r.book = cpu_book(type, s.data[i]);
    s.what.regions.push_back(r);
  }
  return s;
}

/// Destinations of one request on the GPU; tells whether it was published.
struct gpu_places {
  std::vector<device_region> regions;
  int published = 0, discarded = 0;
  [[nodiscard]] device_places calls() {
    return {
        .allocate = [this](const manifest&) -> tersor::result<std::vector<device_region>> { return regions; },
        .publish = [this](const manifest&) -> tersor::status { return ++published, tersor::status{}; },
        .discard = [this](const manifest&) { ++discarded; }};
  }
};

tersor::result<transfer_report> ship(sink& to, source& from, const manifest& what, coding c) {
  TERSOR_TRY(const receiver r, receiver::listen({}, {.pinned_slots = true}, to));
  TERSOR_TRY(sender s,
             sender::connect(r.address(), {.coding = c, .part_bytes = 256 << 10, .pinned_slots = true}));
  return s.send(what, from);
}

std::string describe(const tersor::result<transfer_report>& r) {
  return r ? std::string("ok") : r.error().describe();
}

void contiguous(const env& e, section& s, dtype type, coding c, bool with_book) {
  const std::string where = std::string(to_string(type)) + ", " + std::string(to_string(c));
  const shipment goods = make_shipment(1, type, e.pick<std::uint64_t>(100'000, 3'000'001), with_book);
  std::vector<device_memory> src(goods.data.size()), dst(goods.data.size());
  std::vector<device_region> from;
  gpu_places places;
  for (std::size_t i = 0; i < goods.data.size(); ++i) {
    src[i].grow(goods.data[i].size());
    src[i].put(0, goods.data[i]);
    dst[i].grow(goods.data[i].size() + kGuardBytes);
    dst[i].fill(0, dst[i].size(), kGuard);
    from.push_back({.data_dev = src[i].get()});
    places.regions.push_back({.data_dev = dst[i].get()});
  }
  auto source = device_source::create(e.cpu, {}, from);
  auto gpu = make_device_sink(e.cpu, {}, places.calls());
  if (!s.check(source && gpu, "the endpoints were not made", where)) return;
  const side_stream stream;
  for (std::uint32_t i = 0; i < from.size(); ++i) {
    s.check((*source)->mark_ready(i, as_stream(stream.get())).has_value(), "mark_ready", where);
  }
  const auto sent = ship(**gpu, **source, goods.what, c);
  s.check(sent && places.published == 1, "GPU to GPU: " + describe(sent), where);
  for (std::size_t i = 0; i < goods.data.size(); ++i) {
    s.check(dst[i].take(0, goods.data[i].size()) == goods.data[i], "other values arrived", where);
    s.check(dst[i].holds(goods.data[i].size(), kGuardBytes, kGuard), "written behind the region", where);
    s.add_values(goods.data[i].size() / tersor::value_bytes(type));
  }
  // The same frames on a CPU, and a CPU's frames, raw ones included, on the GPU.
  memory_sink host(e.cpu, std::uint64_t{1} << 32);
  const auto down = ship(host, **source, goods.what, c);
  const auto got = host.take(1, std::chrono::milliseconds(0));
  s.check(down && got &&
              std::ranges::equal(got->regions, goods.data,
                                 [](const auto& a, const auto& b) { return std::ranges::equal(a, b); }),
          "GPU to host: " + describe(down), where);
  for (device_memory& d : dst) d.fill(0, d.size(), kGuard);
  gpu_places again{.regions = places.regions};
  auto fresh = make_device_sink(e.cpu, {}, again.calls());
  const auto up = ship(**fresh, *make_host_source(e.cpu, goods.views()), goods.what, c);
  s.check(up && again.published == 1, "host to GPU: " + describe(up), where);
  for (std::size_t i = 0; i < goods.data.size(); ++i)
    s.check(dst[i].take(0, goods.data[i].size()) == goods.data[i], "other values came from the host", where);
}

/// Blocks of one pool on one side, others of another pool, stored otherwise, on the other side.
void paged(const env& e, section& s, coding c) {
  const std::string where = "pages, " + std::string(to_string(c));
  constexpr std::uint32_t kBlock = 16, kHeads = 8, kDim = 64;
  const std::uint64_t pool_blocks = 64, n_blocks = e.pick<std::uint64_t>(9, 40);
  const std::uint64_t block_values = std::uint64_t{kBlock} * kHeads * kDim;
  device_memory from_pool(pool_blocks * block_values * 2), to_pool(pool_blocks * block_values * 2);
  const bytes values = make_data(dtype::bf16, pool_blocks * block_values, kKinds[0], 77);
  from_pool.put(0, values);
  to_pool.fill(0, to_pool.size(), kGuard);
  void* const from_address = from_pool.get();
  void* const to_address = to_pool.get();
  const auto nhd =
      kv::make_separate_pools(false, dtype::bf16, {&from_address, 1}, pool_blocks, kBlock, kHeads, kDim);
  const auto hnd =
      kv::make_separate_pools(true, dtype::bf16, {&to_address, 1}, pool_blocks, kBlock, kHeads, kDim);
  if (!s.check(nhd && hnd, "pools", where)) return;
  std::vector<std::int32_t> from_blocks, to_blocks;
  for (std::uint64_t i = 0; i < n_blocks; ++i) {
    from_blocks.push_back(static_cast<std::int32_t>((7 * i + 3) % pool_blocks));
    to_blocks.push_back(static_cast<std::int32_t>((11 * i + 5) % pool_blocks));
  }
  const manifest what{.request = 5,
                      .regions = {{.name = "k",
                                   .kind = part_kind::key,
                                   .type = dtype::bf16,
                                   .shape = {n_blocks, kBlock, kHeads, kDim},
                                   .page_bytes = block_values * 2}}};
  gpu_places places{.regions = {{.data_dev = to_address, .layout = hnd->layout, .blocks = to_blocks}}};
  auto source = device_source::create(
      e.cpu, {}, {{.data_dev = from_address, .layout = nhd->layout, .blocks = from_blocks}});
  auto gpu = make_device_sink(e.cpu, {}, places.calls());
  if (!s.check(source && gpu, "the endpoints were not made", where)) return;
  s.check((*source)->mark_ready(0, nullptr).has_value(), "mark_ready", where);
  const auto sent = ship(**gpu, **source, what, c);
  s.check(sent && places.published == 1, "pool to pool: " + describe(sent), where);
  bytes expected(to_pool.size(), std::byte{kGuard});
  for (std::uint64_t i = 0; i < n_blocks; ++i) {
    for (std::uint32_t t = 0; t < kBlock; ++t) {
      for (std::uint32_t h = 0; h < kHeads; ++h) {
        const std::uint64_t a =
            static_cast<std::uint64_t>(from_blocks[i]) * block_values + (t * kHeads + h) * kDim;
        const std::uint64_t b =
            static_cast<std::uint64_t>(to_blocks[i]) * block_values + (h * kBlock + t) * kDim;
        std::copy_n(&values[2 * a], 2 * kDim, &expected[2 * b]);
      }
    }
  }
  s.check(to_pool.take(0, to_pool.size()) == expected,
          "other values arrived, or blocks beside them were touched", where);
  s.add_values(n_blocks * block_values);
  // A pool of another geometry is refused before anything is written.
  gpu_places other{.regions = {{.data_dev = to_address, .layout = hnd->layout, .blocks = {1, 2}}}};
  auto wrong = make_device_sink(e.cpu, {}, other.calls());
  const auto refused = ship(**wrong, **source, what, c);
  s.check(!refused && refused.error().code == errc::mismatch && other.published == 0 && other.discarded == 1,
          "another geometry: " + describe(refused), where);
}

}  // namespace

void run_transfer(const env& e, section& s) {
  for (const coding c : {coding::rank, coding::top16, coding::raw}) {
    for (const dtype type : {dtype::bf16, dtype::f16, dtype::f8_e4m3, dtype::f8_e5m2}) {
      contiguous(e, s, type, c, type != dtype::f16);
    }
    paged(e, s, c);
  }
  const tersor::result<std::unique_ptr<device_source>> nothing =
      device_source::create(e.cpu, {}, {{.data_dev = nullptr}});
  s.check(!nothing && nothing.error().code == errc::invalid_argument, "a null address was taken", "errors");
}

}  // namespace gpu_test
