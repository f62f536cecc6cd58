// Requests out of and into GPU memory: parts are encoded and decoded by the GPU, frames travel through the
// host. For GPUs that see each other's memory, device_link.hpp needs no host in between.
//
//   auto from = device_source::create(ctx, {.device = 0}, regions);
//   ... enqueue layer i on `stream` ...; (*from)->mark_ready(k_of_layer_i, stream);
//   sender.send(manifest, **from);
//
// Set `pinned_slots` in the options of sender and receiver: frames then go over PCIe at full speed.
// In a build or on a machine without CUDA every call returns `backend_unavailable`.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <tersor/cuda.hpp>
#include <tersor/transfer.hpp>

namespace tersor::transfer {

/// Where a region's values lie on a GPU: contiguous, or as pages of one pool of a serving engine. dtypes:
/// those that the GPU codes (cuda.hpp); any other is `unsupported`.
struct device_region {
  void* data_dev = nullptr;  ///< contiguous: the values; paged: address of the pool's block 0
  /// Paged: how blocks lie in the pool, and the blocks of the request in order (host memory, copied). A page
  /// of the region is one block; `page_bytes` must be its size.
  std::optional<cuda::kv::page_layout> layout = {};
  std::vector<std::int32_t> blocks = {};
};

struct device_endpoint_options {
  int device = 0;
  std::uint64_t max_part_bytes = std::uint64_t{4} << 20;  ///< as in the sender's and receiver's options
};

/// Frames are rank or top16 whatever is asked for: a GPU encodes faster than a host would digest raw bytes.
class device_source : public source {
 public:
  /// `regions` in the order of the manifest. `ctx` must outlive the source. Takes a stream, staging memory
  /// and pinned memory of its own. Errors: `invalid_argument`, `unsupported`, `out_of_memory`,
  /// `backend_unavailable`.
  [[nodiscard]] static result<std::unique_ptr<device_source>> create(const context& ctx,
                                                                     const device_endpoint_options& options,
                                                                     std::vector<device_region> regions);
  /// The region may be read after what was enqueued on `after` so far.
  [[nodiscard]] virtual status mark_ready(std::uint32_t region_index, cuda::stream after) = 0;
  /// Ends every wait with this error.
  virtual void give_up(error why) = 0;
};

/// What a receiver's user supplies for requests into GPU memory.
struct device_places {
  /// Called once a request: where its regions go, in their order. The memory must stay until publish or
  /// discard, and hold region_bytes of each (paged: a block for each page). An error refuses the request.
  std::function<result<std::vector<device_region>>(const manifest&)> allocate;
  /// Everything is there, verified and visible to work that is enqueued from now on.
  std::function<status(const manifest&)> publish;
  std::function<void(const manifest&)> discard;
};

/// A sink whose parts are decoded by the GPU into their final place. Contiguous regions are read once more
/// and compared with the frames' digests; of paged ones the decoder's digests are those of the values that it
/// stores.
[[nodiscard]] result<std::unique_ptr<sink>> make_device_sink(const context& ctx,
                                                             const device_endpoint_options& options,
                                                             device_places places);

}  // namespace tersor::transfer
