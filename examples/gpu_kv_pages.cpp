// Pages of a paged KV cache on a GPU: encode them into fixed slots, decode them into other pages, compare
// every bit. The work of encoding and decoding is captured in a CUDA graph and replayed.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include <tersor/cuda.hpp>

namespace {

namespace cuda = tersor::cuda;
namespace kv = tersor::cuda::kv;

constexpr std::uint32_t kLayers = 4, kTokens = 16, kHeads = 8, kDim = 128, kPages = 12;
constexpr std::uint64_t kBlocks = 64;
constexpr std::uint64_t kPageValues = std::uint64_t{kTokens} * kHeads * kDim;
constexpr std::uint64_t kLayerValues = 2 * kBlocks * kPageValues;
constexpr auto kCodec = tersor::codec::rank;
constexpr auto kOrder = cuda::tail_order::free;
constexpr std::uint64_t kNoisyPage = 3;  // of the first pool
constexpr int kSkipped = 77;

void check(cudaError_t e) {
  if (e == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(e));
  std::exit(2);
}
void check(const tersor::status& s) {
  if (s) return;
  std::fprintf(stderr, "%s\n", s.error().describe().c_str());
  std::exit(2);
}

/// Memory that the host cannot read, zeroed; or pinned memory that both can.
template <class T, bool Pinned = false>
class buffer {
 public:
  explicit buffer(std::uint64_t n) {
    void* p = nullptr;
    if constexpr (Pinned) {
      check(cudaMallocHost(&p, n * sizeof(T)));
      std::memset(p, 0, n * sizeof(T));
    } else {
      check(cudaMalloc(&p, n * sizeof(T)));
      check(cudaMemset(p, 0, n * sizeof(T)));
    }
    data_ = static_cast<T*>(p);
  }
  ~buffer() { static_cast<void>(Pinned ? cudaFreeHost(data_) : cudaFree(data_)); }
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;
  [[nodiscard]] T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

/// What attention layers leave in a cache, normal values, a little wider in some layers; and one page of
/// noise, which no codec makes smaller.
std::vector<std::uint16_t> some_cache() {
  std::mt19937 rng(1);
  std::vector<std::uint16_t> values(kLayers * kLayerValues);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t layer = i / kLayerValues;
    std::normal_distribution<float> normal(0.0F, 1.0F + static_cast<float>(layer));
    values[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(rng)) >> 16);
  }
  for (std::uint64_t i = 0; i < kPageValues; ++i) {
    values[kNoisyPage * kPageValues + i] = static_cast<std::uint16_t>(rng());
  }
  return values;
}

kv::page_pools pools_of(std::uint16_t* cache) {
  std::vector<void*> layers;
  for (std::uint32_t i = 0; i < kLayers; ++i) layers.push_back(cache + i * kLayerValues);
  auto pools = kv::make_pools(kv::pool_order::kv_blocks_nhd, tersor::dtype::bf16, layers, kBlocks, kTokens,
                              kHeads, kDim);
  if (!pools) check(tersor::status(tl::unexpected(pools.error())));
  return *pools;
}

/// Page `ids[k]` of the one cache equals page `to[k]` of the other, in every pool.
bool same_pages(const std::vector<std::uint16_t>& a, const std::vector<std::int32_t>& ids,
                const std::vector<std::uint16_t>& b, const std::vector<std::int32_t>& to) {
  for (std::uint64_t pool = 0; pool < std::uint64_t{2} * kLayers; ++pool) {
    for (std::size_t k = 0; k < ids.size(); ++k) {
      const auto page = [&](const auto& cache, std::int32_t id) {
        return cache.data() + (pool * kBlocks + static_cast<std::uint64_t>(id)) * kPageValues;
      };
      if (std::memcmp(page(a, ids[k]), page(b, to[k]), kPageValues * 2) != 0) return false;
    }
  }
  return true;
}

/// Two caches, pages of one and their places in the other, and what the calls need besides.
struct job {
  explicit job(const std::vector<std::uint16_t>& values) : source(values.size()), target(values.size()) {
    check(cudaStreamCreate(&stream));
    check(cudaMemcpy(source.get(), values.data(), values.size() * 2, cudaMemcpyHostToDevice));
    for (std::uint32_t k = 0; k < kPages; ++k) ids[k] = static_cast<std::int32_t>((5 * k + 3) % kBlocks);
    std::iota(to.begin(), to.end(), 20);
    check(cudaMemcpy(ids_dev.get(), ids.data(), kPages * sizeof(std::int32_t), cudaMemcpyHostToDevice));
    check(cudaMemcpy(to_dev.get(), to.data(), kPages * sizeof(std::int32_t), cudaMemcpyHostToDevice));
  }
  ~job() { static_cast<void>(cudaStreamDestroy(stream)); }
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  cudaStream_t stream = nullptr;
  buffer<std::uint16_t> source, target;
  kv::page_pools from = pools_of(source.get());
  kv::page_pools into = pools_of(target.get());
  std::uint64_t n_frames = from.pools.size() * kPages;
  std::vector<std::int32_t> ids = std::vector<std::int32_t>(kPages), to = ids;
  buffer<std::int32_t> ids_dev{kPages}, to_dev{kPages};
  kv::page_list pages{.ids_dev = ids_dev.get(), .n_pages = kPages};
  kv::page_list places{.ids_dev = to_dev.get(), .n_pages = kPages};
  /// Large enough for each of the calls, which take turns on one stream.
  std::uint64_t ws_bytes =
      std::max(kv::codebooks_workspace_size(from),
               kv::pages_workspace_size(kCodec, from, kv::page_frames::slots, kPages, kOrder));
  buffer<std::byte> ws_memory{ws_bytes};
  cuda::workspace ws{.data_dev = ws_memory.get(), .n_bytes = ws_bytes};
  buffer<std::uint8_t> codebooks{16 * from.pools.size()};
  buffer<cuda::frame_result, true> encoded{n_frames}, decoded{n_frames};
};

void check_codes(const cuda::frame_result* results, std::uint64_t n) {
  for (std::uint64_t f = 0; f < n; ++f) {
    if (results[f].code == 0) continue;
    std::fprintf(stderr, "frame %llu: code %d\n", static_cast<unsigned long long>(f), results[f].code);
    std::exit(1);
  }
}

/// Once per model: codebooks of the pools, and the slot size that 90% of the pages fit.
std::uint64_t calibrate(const job& j) {
  check(kv::make_codebooks_async(kCodec, j.from, j.pages, j.codebooks.get(), j.ws, j.stream));
  const std::uint64_t bound = kv::page_frame_bound(kCodec, j.from.layout, kv::page_frames::slots, kPages);
  const buffer<std::byte> roomy(j.n_frames * bound);
  const kv::page_store trial{
      .kind = kv::page_frames::slots, .frames_dev = roomy.get(), .frame_stride = bound};
  check(kv::encode_pages_async(kCodec, j.from, j.pages, j.codebooks.get(), trial, j.encoded.get(), kOrder,
                               j.ws, j.stream));
  check(cudaStreamSynchronize(j.stream));
  check_codes(j.encoded.get(), j.n_frames);
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t f = 0; f < j.n_frames; ++f) sizes.push_back(j.encoded.get()[f].frame_bytes);
  return kv::suggest_slot_bytes(sizes, 0.9);
}

/// Encodes into slots and decodes into the other cache, three times; returns how many pages did not fit.
std::uint32_t round_trip(const job& j, std::uint64_t slot) {
  // Pages that do not fit go to the overflow area as they are.
  const buffer<std::byte> slots(j.n_frames * slot);
  const buffer<std::byte> overflow(j.n_frames * kv::raw_frame_bytes(j.from.layout));
  const buffer<std::uint32_t> used(1);
  const kv::page_store store{.kind = kv::page_frames::slots,
                             .frames_dev = slots.get(),
                             .frame_stride = slot,
                             .overflow_dev = overflow.get(),
                             .overflow_places = static_cast<std::uint32_t>(j.n_frames),
                             .overflow_used_dev = used.get()};

  // Nothing in these calls waits or allocates, so a graph can hold them.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check(cudaStreamBeginCapture(j.stream, cudaStreamCaptureModeThreadLocal));
  check(cudaMemsetAsync(used.get(), 0, sizeof(std::uint32_t), j.stream));
  check(kv::encode_pages_async(kCodec, j.from, j.pages, j.codebooks.get(), store, j.encoded.get(), kOrder,
                               j.ws, j.stream));
  check(kv::decode_pages_async(kCodec, j.into, j.places, store, j.encoded.get(), j.decoded.get(), j.ws,
                               j.stream));
  check(cudaStreamEndCapture(j.stream, &graph));
  check(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(replay, j.stream));
  check(cudaStreamSynchronize(j.stream));
  check(cudaGraphExecDestroy(replay));
  check(cudaGraphDestroy(graph));
  check_codes(j.encoded.get(), j.n_frames);
  check_codes(j.decoded.get(), j.n_frames);
  std::uint32_t overflowed = 0;
  check(cudaMemcpy(&overflowed, used.get(), sizeof overflowed, cudaMemcpyDeviceToHost));
  return overflowed;
}

}  // namespace

int main() {
  const auto devices = cuda::devices();
  if (!devices || devices->empty()) {
    std::printf("no GPU: %s\n", devices ? "none found" : devices.error().describe().c_str());
    return kSkipped;
  }
  const std::vector<std::uint16_t> values = some_cache();
  const job j(values);
  const std::uint64_t slot = calibrate(j);
  const std::uint32_t overflowed = round_trip(j, slot);

  std::vector<std::uint16_t> back(values.size());
  check(cudaMemcpy(back.data(), j.target.get(), back.size() * 2, cudaMemcpyDeviceToHost));
  const bool same = same_pages(values, j.ids, back, j.to);
  std::printf("%llu pages of %llu bytes in slots of %llu bytes, %u in the overflow area: %s\n",
              static_cast<unsigned long long>(j.n_frames), static_cast<unsigned long long>(kPageValues * 2),
              static_cast<unsigned long long>(slot), overflowed, same ? "identical" : "DIFFERENT");
  const std::string& name = devices->front().name;
  std::printf("64 MiB over 50 GB/s from %s: %s\n", name.c_str(),
              kv::worth_it(64 << 20, 50, kCodec, name) ? "encode" : "send as they are");
  return same ? 0 : 1;
}
