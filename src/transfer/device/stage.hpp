// What a device endpoint owns on its GPU: a stream, memory for one frame, and pinned words for verdicts.
#pragma once

#include <cstring>

#include "transfer/device/resources.hpp"
#include "transfer/session/aligned_bytes.hpp"
#include <tersor/device_transfer.hpp>

namespace tersor::transfer::device {

[[nodiscard]] inline bool is_gpu_dtype(dtype type) noexcept {
  return cuda::encode_bound(codec::rank, type, 1) != 0;
}

/// Verdicts in pinned memory: of coding, and of reading once more.
struct stage_words {
  cuda::frame_result coded, again;
};

class stage {
 public:
  [[nodiscard]] static result<stage> create(const device_endpoint_options& options) {
    stage s;
    const on_device guard(options.device);
    TERSOR_CHECK(guard.good());
    s.device_ = options.device;
    s.frame_bytes_ = frame_bound(options.max_part_bytes);
    if (s.frame_bytes_ == 0) return fail(errc::size_overflow, "a part's size leaves 64 bits");
    TERSOR_TRY(s.stream_, make_stream());
    TERSOR_TRY(s.frame_, make_memory(s.frame_bytes_));
    TERSOR_TRY(s.work_, make_memory(kWorkBytes));
    TERSOR_TRY(s.book_, make_memory(kBookBytes));
    void* words = nullptr;
    TERSOR_CHECK(ok(cudaHostAlloc(&words, sizeof(stage_words), cudaHostAllocPortable), "pinned memory"));
    s.words_ = pinned(words);
    return s;
  }

  [[nodiscard]] int device() const noexcept { return device_; }
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }
  [[nodiscard]] void* frame() const noexcept { return frame_.get(); }
  [[nodiscard]] std::uint64_t frame_bytes() const noexcept { return frame_bytes_; }
  [[nodiscard]] std::uint8_t* book() const noexcept { return static_cast<std::uint8_t*>(book_.get()); }
  [[nodiscard]] cuda::workspace work() const noexcept {
    return {.data_dev = work_.get(), .n_bytes = kWorkBytes};
  }
  [[nodiscard]] stage_words& words() const noexcept { return *static_cast<stage_words*>(words_.get()); }
  /// The verdicts are bad until the GPU has written them.
  void expect() const noexcept {
    words() = {.coded = {.code = static_cast<std::int32_t>(errc::internal)},
               .again = {.code = static_cast<std::int32_t>(errc::internal)}};
  }
  [[nodiscard]] status finish(const char* what) const { return ok(cudaStreamSynchronize(stream()), what); }

  /// Sets one 16-symbol codebook in device memory.
  [[nodiscard]] status set_book(const codebook& book) const {
    return ok(cudaMemcpyAsync(book_.get(), book.symbols.data(), book.symbols.size(), cudaMemcpyHostToDevice,
                              stream()),
              "codebook");
  }

 private:
  /// More than any call for one frame needs (checked by every call).
  static constexpr std::uint64_t kWorkBytes = std::uint64_t{1} << 20;
  static constexpr std::uint64_t kBookBytes = 128;
  using pinned = owned<void*, cudaFreeHost>;

  int device_ = 0;
  std::uint64_t frame_bytes_ = 0;
  own_stream stream_;
  memory frame_, work_, book_;
  pinned words_;
};

/// A region's pool and the ids of its blocks in device memory.
struct placed_region {
  device_region at;
  memory ids;

  [[nodiscard]] static result<placed_region> make(device_region r) {
    placed_region p{.at = std::move(r), .ids = {}};
    if (p.at.data_dev == nullptr) return fail(errc::invalid_argument, "a region's address is null");
    if (!p.at.layout) return p;
    const std::size_t n_bytes = p.at.blocks.size() * sizeof(std::int32_t);
    if (n_bytes == 0) return p;
    TERSOR_TRY(p.ids, make_memory(n_bytes));
    TERSOR_CHECK(
        ok(cudaMemcpy(p.ids.get(), p.at.blocks.data(), n_bytes, cudaMemcpyHostToDevice), "block ids"));
    return p;
  }
  [[nodiscard]] cuda::kv::page_pools pools() const { return {.layout = *at.layout, .pools = {at.data_dev}}; }
  /// The part's blocks; the caller has checked its pages.
  [[nodiscard]] cuda::kv::page_list pages(const part& p) const {
    return {.ids_dev = static_cast<const std::int32_t*>(ids.get()) + p.first_page,
            .n_pages = static_cast<std::uint32_t>(p.n_pages)};
  }
  /// Errors: `mismatch`: the manifest says something else than the pool.
  [[nodiscard]] status check(const region& r) const {
    if (!is_gpu_dtype(r.type))
      return fail(errc::unsupported, std::string(to_string(r.type)) + " is not coded on a GPU");
    if (!at.layout) return {};
    TERSOR_TRY(const std::uint64_t n_bytes, region_bytes(r));
    const std::uint64_t block_bytes = at.layout->page_values() * value_bytes(at.layout->type);
    if (at.layout->type != r.type || r.page_bytes != block_bytes ||
        n_bytes != block_bytes * at.blocks.size()) {
      return fail(errc::mismatch, "page geometry: region '" + r.name + "' is not the pool's blocks");
    }
    return {};
  }
};

[[nodiscard]] inline status verdict(const cuda::frame_result& r, const char* what) {
  if (r.code == 0) return {};
  error e{.code = static_cast<errc>(r.code), .message = what};
  if (r.chunk != cuda::kNoChunk) e.chunk = r.chunk;
  return tl::unexpected<error>(std::move(e));
}

}  // namespace tersor::transfer::device
