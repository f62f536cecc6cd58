// Frames on an NVIDIA GPU: encode and decode in device memory, on the caller's stream, into the caller's
// buffers.
//
// Every call only enqueues work. It allocates nothing, waits for nothing, keeps no state between calls and
// can be captured in a CUDA graph. What a call finds out (sizes, verdicts, digests) lands in memory that the
// device can write: device memory, or pinned host memory where the caller wants to read it without a copy.
// The calls act on the device that is current when they are made; streams and pointers belong to that device.
// Returned errors concern the arguments or the launch; verdicts on data are in `frame_result`.
//
// Workspaces: `workspace` memory of the size that the `*_workspace_size` functions give, 16-byte aligned,
// zeroed once (cudaMemsetAsync) before its first use. Each call leaves it ready for the next one. Two calls
// that may run at the same time need two workspaces.
//
// In a build or on a machine without CUDA every call returns `backend_unavailable`.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tersor/codec.hpp>

struct CUstream_st;

namespace tersor::cuda {

/// cudaStream_t, without its header.
using stream = CUstream_st*;

/// Frames must begin at a multiple of this in device memory; tensors may begin anywhere.
inline constexpr std::uint64_t kFrameAlignment = 16;

inline constexpr std::uint32_t kNoChunk = 0xffffffff;
/// `frame_result::overflow` of a frame that lies in its own place.
inline constexpr std::uint32_t kInPlace = 0xffffffff;

/// What encoding or decoding one frame found out; 32 bytes, written once, at the end.
struct frame_result {
  std::int32_t code = 0;              ///< errc as a number; 0 = good
  std::uint32_t chunk = kNoChunk;     ///< first chunk that is not good
  std::uint64_t frame_bytes = 0;      ///< size of the frame
  std::uint64_t digest = 0;           ///< frame digest
  std::uint32_t overflow = kInPlace;  ///< slots: index of the overflow area's place that holds the page
  std::uint32_t reserved = 0;
};

/// Device memory of the caller; see the head of this file.
struct workspace {
  void* data_dev = nullptr;
  std::uint64_t n_bytes = 0;
};

/// A GPU that this build can use.
struct device_info {
  int index = 0;
  std::string name;
  int compute_major = 0, compute_minor = 0;
  std::uint32_t multiprocessors = 0;
  std::uint64_t memory_bytes = 0, l2_bytes = 0;
  std::string driver;  ///< version of the CUDA driver, e.g. "13.0"
};
/// The machine's GPUs. Errors: `backend_unavailable` with the reason.
[[nodiscard]] result<std::vector<device_info>> devices();

/// Order of the chunks' tails in a frame (spec/codecs.md section 7). `free`: as they finish; one launch, and
/// the bytes may differ from run to run. `canonical`: the bytes that the CPU backends make; one more small
/// launch.
enum class tail_order : std::uint8_t { free, canonical };

// ---- One tensor, or many in one launch ----

/// A contiguous row-major tensor to encode. dtypes: bf16, f16, f8_e4m3, f8_e5m2.
struct encode_task {
  dtype type = dtype::bf16;
  std::span<const std::uint64_t> shape = {};
  const void* src_dev = nullptr;  ///< any alignment
  /// 16 symbols in device memory (16-byte aligned), or null to take `book`.
  const std::uint8_t* codebook_dev = nullptr;
  codebook book = {};
  void* frame_dev = nullptr;   ///< must not overlap the source
  std::uint64_t capacity = 0;  ///< bytes at `frame_dev`; `encode_bound` always suffices
  frame_result* result_dev = nullptr;
};

/// Bytes that a frame of `n_values` values needs at most.
/// The same number as tersor::encode_bound; 0 for what the GPU does not encode.
[[nodiscard]] std::uint64_t encode_bound(codec c, dtype type, std::uint64_t n_values) noexcept;
/// Workspace of one call that encodes these tasks.
[[nodiscard]] std::uint64_t encode_workspace_size(codec c, tail_order order,
                                                  std::span<const encode_task> tasks) noexcept;

/// Encodes with `rank` or `top16`. A frame larger than its capacity has the code `destination_too_small` and
/// no tails were written past the capacity; the header is then not valid. Nothing is stored raw on its own:
/// compare `frame_bytes` with the tensor's size, or use slots (kv::encode_pages_async).
/// Errors: `invalid_argument`, `unsupported`, `destination_too_small` (capacity that holds no frame at all),
/// `backend_unavailable`, `internal` (the launch failed).
[[nodiscard]] status encode_async(codec c, const encode_task& task, tail_order order, const workspace& ws,
                                  stream s);
[[nodiscard]] status encode_batch_async(codec c, std::span<const encode_task> tasks, tail_order order,
                                        const workspace& ws, stream s);

/// A frame to decode. The caller knows what it must hold; a frame that says otherwise has the code
/// `mismatch`.
struct decode_task {
  dtype type = dtype::bf16;
  std::uint64_t n_values = 0;
  const void* frame_dev = nullptr;
  std::uint64_t frame_bytes = 0;  ///< bytes that may be read at `frame_dev`; the frame may be shorter
  void* dst_dev = nullptr;  ///< n_values values, any alignment; on a bad code its content is unspecified
  frame_result* result_dev = nullptr;
  std::uint8_t* chunk_codes_dev = nullptr;  ///< optional: one errc per chunk; not written if
                                            ///< `frame_bytes` ends before the tails
};

[[nodiscard]] std::uint64_t decode_workspace_size(std::span<const decode_task> tasks) noexcept;

/// Decodes frames of codec `c`; header, index, padding and every chunk are checked as spec/codecs.md section
/// 6 demands, with the same codes as tersor::decode_into. No frame, however damaged, makes the kernel touch
/// memory outside `frame_dev[0, frame_bytes)` and the destination, or loop without end.
[[nodiscard]] status decode_async(codec c, const decode_task& task, const workspace& ws, stream s);
[[nodiscard]] status decode_batch_async(codec c, std::span<const decode_task> tasks, const workspace& ws,
                                        stream s);

// ---- Frames that move, and values that were moved ----

/// Bytes of a frame before its tails: header, index and planes, whose size does not depend on the values. A
/// multiple of 128; 0 for what the GPU does not encode.
[[nodiscard]] std::uint64_t frame_prefix_size(codec c, dtype type, std::uint64_t n_values) noexcept;

/// The rest of a frame whose first `prefix_bytes` are copied in another way.
struct tails_task {
  std::uint64_t prefix_bytes = 0;             ///< frame_prefix_size
  const void* from_dev = nullptr;             ///< the frame
  void* to_dev = nullptr;                     ///< where it goes: this device, a peer or pinned host memory
  std::uint64_t capacity = 0;                 ///< bytes at both
  const frame_result* encoded_dev = nullptr;  ///< what encoding found: says where the tails end
};
/// Copies the tails of frames whose encoding was enqueued before; nothing of a frame that did not fit.
/// Errors: `invalid_argument`, `backend_unavailable`, `internal`.
[[nodiscard]] status copy_tails_async(std::span<const tails_task> tasks, stream s);

/// Values in device memory and the frame that they were decoded from.
struct recheck_task {
  dtype type = dtype::bf16;  ///< of all tasks of a call
  std::uint64_t n_values = 0;
  const void* values_dev = nullptr;
  const void* frame_dev = nullptr;
  std::uint64_t frame_bytes = 0;  ///< bytes that may be read at `frame_dev`
  frame_result* result_dev = nullptr;
};
[[nodiscard]] std::uint64_t recheck_workspace_size() noexcept;

/// Reads the values where they lie now and compares them with the digests in the frame's index: decoding
/// digests the values that it is about to store, this the ones that are stored. Header, index and padding are
/// judged as in decoding; planes and tails are not read. Errors: as decode_async.
[[nodiscard]] status recheck_async(codec c, std::span<const recheck_task> tasks, const workspace& ws,
                                   stream s);

// ---- Codebooks ----

[[nodiscard]] std::uint64_t codebook_workspace_size() noexcept;
/// The exact canonical codebook of `n_values` values for codec `c`, into 16 bytes of device memory: what
/// encode_task::codebook_dev wants. One pass over the data, one launch.
[[nodiscard]] status make_codebook_async(codec c, dtype type, const void* src_dev, std::uint64_t n_values,
                                         std::uint8_t* codebook_dev, const workspace& ws, stream s);

}  // namespace tersor::cuda

namespace tersor::cuda::kv {

/// Where the values of one layer's K (or V) pages lie; strides in values. Value (page, token, head, i) is at
/// page * page_stride + token * token_stride + head * head_stride + i * value_stride. Frames hold values in
/// the order (token, head, i) whatever the strides, so pages encoded from one layout decode into another.
struct page_layout {
  dtype type = dtype::bf16;
  std::uint64_t n_blocks = 0;  ///< pages of the pool; page ids outside are refused
  std::uint32_t block_size = 16;
  std::uint32_t kv_heads = 8;
  std::uint32_t head_dim = 128;
  std::uint64_t page_stride = 0, token_stride = 0, head_stride = 0, value_stride = 1;

  [[nodiscard]] std::uint64_t page_values() const noexcept {
    return std::uint64_t{block_size} * kv_heads * head_dim;
  }
};

/// The K and V pools of all layers, in the order K of layer 0, V of layer 0, K of layer 1, ...: `pools[p]` is
/// the address of page 0. (MLA has one pool per layer.)
struct page_pools {
  page_layout layout;
  std::vector<void*> pools;
};

/// Storage orders of serving engines.
enum class pool_order : std::uint8_t {
  kv_blocks_nhd,  ///< [2, blocks, block_size, heads, dim]: vLLM (FlashAttention)
  blocks_kv_nhd,  ///< [blocks, 2, block_size, heads, dim]: vLLM (FlashInfer), FlashInfer NHD
  kv_blocks_hnd,  ///< [2, blocks, heads, block_size, dim]
  blocks_kv_hnd,  ///< [blocks, 2, heads, block_size, dim]: FlashInfer HND
  mla,            ///< [blocks, block_size, latent]: one latent vector per token, heads = 1, dim = latent
};
/// `layers_dev[i]` is the address of layer i's cache tensor. Errors: `invalid_argument`, `size_overflow`.
[[nodiscard]] result<page_pools> make_pools(pool_order order, dtype type, std::span<void* const> layers_dev,
                                            std::uint64_t n_blocks, std::uint32_t block_size,
                                            std::uint32_t kv_heads, std::uint32_t head_dim);
/// Pools that are separate K and V tensors of [blocks, block_size, heads, dim] (NHD) or [blocks, heads,
/// block_size, dim] (HND); `pools_dev` in the order of page_pools.
[[nodiscard]] result<page_pools> make_separate_pools(bool hnd, dtype type, std::span<void* const> pools_dev,
                                                     std::uint64_t n_blocks, std::uint32_t block_size,
                                                     std::uint32_t kv_heads, std::uint32_t head_dim);

/// One frame per pool with all chosen pages (`gathered`: shape [pages, block_size, heads, dim]), or one frame
/// per pool and page (`slots`: shape [block_size, heads, dim]).
enum class page_frames : std::uint8_t { gathered, slots };

/// A list of pages: the same ids for every pool.
struct page_list {
  const std::int32_t* ids_dev = nullptr;  ///< in device memory
  std::uint32_t n_pages = 0;
};

/// Where frames of pages lie. Frame f = pool (gathered) or pool * n_pages + page (slots) begins at
/// `frames_dev + f * frame_stride`; results and codes alike are in this order.
struct page_store {
  page_frames kind = page_frames::gathered;
  void* frames_dev = nullptr;
  std::uint64_t frame_stride = 0;  ///< a multiple of 128; slots: the slot size; gathered: >= the bound
  /// slots: pages that do not fit are stored as raw frames here, `overflow_places` of `raw_frame_bytes` each;
  /// null: they are flagged `destination_too_small`.
  void* overflow_dev = nullptr;
  std::uint32_t overflow_places = 0;
  std::uint32_t* overflow_used_dev = nullptr;  ///< counts places taken; the caller zeroes it
};

/// Size of a place in the overflow area: a raw frame of one page, a multiple of 128.
[[nodiscard]] std::uint64_t raw_frame_bytes(const page_layout& layout) noexcept;
/// Bound of a gathered frame (kind gathered) or of one page's frame (kind slots).
[[nodiscard]] std::uint64_t page_frame_bound(codec c, const page_layout& layout, page_frames kind,
                                             std::uint32_t n_pages) noexcept;
/// The smallest slot size (a multiple of 128) that holds at least `coverage` (0..1] of the frame sizes seen
/// in a calibration; 0 for an empty list.
[[nodiscard]] std::uint64_t suggest_slot_bytes(std::span<const std::uint64_t> frame_bytes,
                                               double coverage) noexcept;

[[nodiscard]] std::uint64_t pages_workspace_size(codec c, const page_pools& pools, page_frames kind,
                                                 std::uint32_t n_pages, tail_order order) noexcept;

/// Gathers pages out of the pools and encodes them in the same kernel; no staging copy.
/// `codebooks_dev`: 16 symbols per pool; `results_dev`: one per frame.
[[nodiscard]] status encode_pages_async(codec c, const page_pools& pools, const page_list& pages,
                                        const std::uint8_t* codebooks_dev, const page_store& store,
                                        frame_result* results_dev, tail_order order, const workspace& ws,
                                        stream s);
/// Decodes frames that encode_pages_async made (here or elsewhere) and scatters them into pages. `where_dev`:
/// for slots with an overflow area, the results of encoding (their `overflow` fields say where pages lie),
/// else null.
[[nodiscard]] status decode_pages_async(codec c, const page_pools& pools, const page_list& pages,
                                        const page_store& store, const frame_result* where_dev,
                                        frame_result* results_dev, const workspace& ws, stream s);
/// One exact codebook per pool over the chosen pages, into 16 bytes per pool.
[[nodiscard]] status make_codebooks_async(codec c, const page_pools& pools, const page_list& pages,
                                          std::uint8_t* codebooks_dev, const workspace& ws, stream s);
[[nodiscard]] std::uint64_t codebooks_workspace_size(const page_pools& pools) noexcept;

// ---- Does it pay? ----

/// Measured speed of a codec on a device: time to encode n bytes = encode_us + n / encode_gb_s, and so on.
struct codec_speed {
  double encode_gb_s = 0, decode_gb_s = 0;
  double encode_us = 0, decode_us = 0;  ///< fixed cost of a call
  double ratio = 1;
};
/// What `tersor bench codec --device cuda` measured on a GPU of this name (bench/results); nullopt if no
/// figures are built in for it.
[[nodiscard]] std::optional<codec_speed> known_speed(codec c, std::string_view device_name) noexcept;
/// Microseconds to move `n_bytes` over a link of `link_gb_s` (1e9 bytes a second): as they are, and encoded
/// at one end and decoded at the other, one after the other.
struct transfer_cost {
  double plain_us = 0, encoded_us = 0;
};
[[nodiscard]] transfer_cost estimate_transfer(std::uint64_t n_bytes, double link_gb_s,
                                              const codec_speed& speed) noexcept;
/// True if encoding makes the transfer faster.
[[nodiscard]] bool worth_it(std::uint64_t n_bytes, double link_gb_s, const codec_speed& speed) noexcept;
/// The same for a known device; false (send plain) for an unknown one.
[[nodiscard]] bool worth_it(std::uint64_t n_bytes, double link_gb_s, codec c,
                            std::string_view device_name) noexcept;

}  // namespace tersor::cuda::kv
