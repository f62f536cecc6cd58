// A paged KV cache on host and device, with its own formula for where each value lies.
#pragma once

#include "data.hpp"

namespace gpu_test {

/// Geometry of a cache and how its tensors store it.
struct cache_shape {
  enum class order {
    kv_blocks_nhd,
    blocks_kv_nhd,
    kv_blocks_hnd,
    blocks_kv_hnd,
    mla,
    separate_nhd,
    separate_hnd
  };

  order how = order::kv_blocks_nhd;
  tersor::dtype type = tersor::dtype::bf16;
  std::uint32_t n_layers = 2, n_blocks = 19, block_size = 16, heads = 3, dim = 64;
  bool latent = false;      ///< one pool per layer, as MLA has it; separate_nhd may be so too
  std::uint32_t shift = 0;  ///< values before the tensor in its allocation

  [[nodiscard]] std::uint32_t n_pools() const { return latent ? n_layers : 2 * n_layers; }
  [[nodiscard]] bool separate() const { return how == order::separate_nhd || how == order::separate_hnd; }
  [[nodiscard]] std::uint32_t n_tensors() const { return separate() ? n_pools() : n_layers; }
  [[nodiscard]] std::uint64_t page_values() const { return std::uint64_t{block_size} * heads * dim; }
  [[nodiscard]] std::uint64_t tensor_values() const {
    return page_values() * n_blocks * (separate() || latent ? 1 : 2);
  }
  /// Place of a value in its tensor; tensor `pool` if separate, else `pool / 2` (latent: `pool`).
  [[nodiscard]] std::uint64_t place(std::uint32_t pool, std::uint64_t page, std::uint32_t token,
                                    std::uint32_t head, std::uint32_t i) const;
  [[nodiscard]] std::uint32_t tensor_of(std::uint32_t pool) const {
    return separate() || latent ? pool : pool / 2;
  }
  [[nodiscard]] std::string text() const;
};

/// The cache's tensors on the host and in device memory, with guards around each.
class cache {
 public:
  /// Filled with random values (`seed` != 0) or with the guard byte.
  cache(const cache_shape& shape, std::uint64_t seed);

  [[nodiscard]] const cache_shape& shape() const noexcept { return shape_; }
  [[nodiscard]] const tersor::cuda::kv::page_pools& pools() const noexcept { return pools_; }
  /// The library's word on the geometry: good only if make_pools worked.
  [[nodiscard]] const std::string& fault() const noexcept { return fault_; }

  /// Values of one page of one pool on the host in (token, head, i) order.
  [[nodiscard]] bytes page(std::uint32_t pool, std::int32_t id) const;
  void set_page(std::uint32_t pool, std::int32_t id, byte_view values);
  /// True if device memory, guards included, is what the host has, pages in `ignore` aside.
  [[nodiscard]] bool device_agrees(const std::vector<std::int32_t>& ignore = {}) const;

 private:
  template <class Visit>
  void visit_page(std::uint32_t pool, std::int32_t id, const Visit& visit) const;
  void make_pools();

  cache_shape shape_;
  std::vector<bytes> host_;
  std::vector<device_memory> device_;
  tersor::cuda::kv::page_pools pools_;
  std::string fault_;
};

/// `n` page ids below `n_blocks`, shuffled, none twice.
[[nodiscard]] std::vector<std::int32_t> shuffled_ids(std::uint32_t n_blocks, std::uint32_t n, prng& random);

/// What encoding or decoding pages needs in device memory.
class page_rig {
 public:
  page_rig(const env& e, section& s, const cache& from, const std::vector<std::int32_t>& ids, tersor::codec c,
           tersor::cuda::kv::page_frames kind);

  /// Makes the codebooks on the GPU and checks them against the CPU's.
  bool make_books(std::string_view where);
  /// Lets frames lie `stride` apart and overflow into `places` (0: no overflow area).
  void set_store(std::uint64_t stride, std::uint32_t places);
  tersor::status encode(tersor::cuda::tail_order order, std::string_view where);
  /// Other ids than those that the codebooks were made for; nothing is expected of the frames.
  tersor::status encode_others(const std::vector<std::int32_t>& ids, tersor::cuda::tail_order order,
                               std::string_view where);
  tersor::status decode(const cache& to, const std::vector<std::int32_t>& ids, std::string_view where);

  [[nodiscard]] std::uint32_t n_frames() const noexcept;
  [[nodiscard]] std::uint32_t pool_of(std::uint32_t frame) const noexcept;
  /// What frame f must hold, and the frame that the CPU makes of it.
  [[nodiscard]] bytes expected_values(std::uint32_t frame) const;
  [[nodiscard]] bytes expected_frame(std::uint32_t frame) const;
  [[nodiscard]] std::vector<std::uint64_t> frame_shape() const;
  [[nodiscard]] tersor::cuda::frame_result encoded(std::uint32_t frame) const {
    return take_result(encoded_, frame);
  }
  [[nodiscard]] tersor::cuda::frame_result decoded(std::uint32_t frame) const {
    return take_result(decoded_, frame);
  }
  [[nodiscard]] bytes stored(std::uint32_t frame, std::uint64_t n_bytes) const {
    return frames_.take(frame * stride_, n_bytes);
  }
  [[nodiscard]] bytes overflowed(std::uint32_t place) const;
  [[nodiscard]] std::uint32_t overflow_used() const;
  /// Guards behind frames and overflow area.
  [[nodiscard]] bool guards_hold() const;
  [[nodiscard]] std::uint64_t bound() const;

 private:
  [[nodiscard]] tersor::cuda::kv::page_store store() const;

  const env& env_;
  section& section_;
  const cache& from_;
  std::vector<std::int32_t> ids_;
  tersor::codec codec_;
  tersor::cuda::kv::page_frames kind_;
  std::uint64_t stride_ = 0;
  std::uint32_t places_ = 0;
  std::vector<tersor::codebook> books_;
  side_stream stream_;
  device_memory ids_dev_, books_dev_, frames_, encoded_, decoded_, overflow_, used_;
  work_memory counting_, coding_;
};

}  // namespace gpu_test
