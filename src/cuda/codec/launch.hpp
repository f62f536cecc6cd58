// What a launch hands to its kernels: plain structs, made on the host, passed by value.
//
// The work of a launch is a list of groups. A group is a set of frames with one geometry and one codebook: a
// tensor's single frame, or the slots of all pages of one pool. Every CTA works for one group only.
#pragma once

#include <cstdint>

namespace tersor::cuda {

inline constexpr std::uint32_t kWarps = 8;  ///< of a CTA; warp w works on tile w of a chunk
inline constexpr std::uint32_t kCtaThreads = 32 * kWarps;
inline constexpr std::uint32_t kHeaderWords = 16;
inline constexpr std::uint32_t kHeaderBytes = 128;
inline constexpr std::uint32_t kRecordBytes = 24;
/// Chunks whose tails one CTA puts in order.
inline constexpr std::uint32_t kOrderChunks = 64;

// Words of the frame header (spec/frame.md).
inline constexpr std::uint32_t kTailWordsWord = 3;
inline constexpr std::uint32_t kIndexDigestWord = 4;
inline constexpr std::uint32_t kHeaderDigestWord = 5;
inline constexpr std::uint32_t kCodebookWord = 6;

/// Where the sections of a coded frame lie, in bytes from its start, and how much there is of them.
struct frame_shape {
  std::uint64_t rest = 0;        ///< byte plane
  std::uint64_t fields[2] = {};  ///< rest field planes
  std::uint64_t code = 0;
  std::uint64_t tails = 0;
  std::uint64_t n_bytes = 0;  ///< encode: capacity; decode: bytes that may be read; both multiples of 4
  std::uint64_t n_values = 0;
  std::uint32_t n_tiles = 0;
  std::uint32_t n_chunks = 0;
  std::uint32_t last_values = 0;  ///< of the last tile: 1..1024
};

/// Running totals of one frame in the workspace; zero before and after each call.
struct frame_totals {
  std::uint64_t words;  ///< tail words placed, or declared by the records
  std::uint64_t index;  ///< sum of the records' hashes
  std::uint32_t done;   ///< chunks finished
  // Complements, so that the smallest is a maximum and zero means none.
  std::uint32_t bad_record;  ///< ~(chunk) of the first record that contradicts the format
  std::uint32_t bad_chunk;   ///< ~(chunk << 3 | chunk_verdict) of the first bad chunk
  std::uint32_t bad_page;    ///< a page id outside the pool was met
};

/// What is wrong with a chunk.
enum class chunk_verdict : std::uint32_t { malformed = 0, digest_differs = 1, bad_page = 2, good = 7 };

// Numbers of tersor::errc that kernels report themselves; src/codec/header_verdict.hpp has those of headers.
inline constexpr std::int32_t kOk = 0, kInvalidArgument = 1, kDestinationTooSmall = 2, kTruncated = 3,
                              kMalformed = 6, kDigestMismatch = 7, kMismatch = 16;

/// As tersor::cuda::frame_result; this room's kernels do not include public headers.
struct result_slot {
  std::int32_t code;
  std::uint32_t chunk;
  std::uint64_t frame_bytes;
  std::uint64_t digest;
  std::uint32_t overflow;
  std::uint32_t reserved;
};

/// One contiguous tensor and its frame.
struct tensor_group {
  std::uint8_t* tensor = nullptr;
  std::uint8_t* frame = nullptr;
  const std::uint8_t* codebook = nullptr;  ///< null: words 6 and 7 of `header`
  result_slot* result = nullptr;
  std::uint8_t* chunk_codes = nullptr;
  std::uint64_t header[kHeaderWords] = {};  ///< all fields but tail words and digests
  frame_shape shape;
};

template <std::uint32_t kMaxGroups>
struct tensors_launch {
  static constexpr std::uint32_t kMost = kMaxGroups;
  tensor_group groups[kMaxGroups];
  std::uint32_t first_cta[kMaxGroups + 1] = {};
  std::uint32_t n_groups = 0;
  frame_totals* totals = nullptr;
  /// Canonical order: tails of group g wait here until they are put in order; null for free order.
  std::uint32_t* waiting[kMaxGroups] = {};
  std::uint32_t* order_words[kMaxGroups] = {};  ///< tail words of each kOrderChunks chunks
};

inline constexpr std::uint32_t kMaxTensors = 14;
using tensor_launch = tensors_launch<kMaxTensors>;
/// The commonest case: its constants are operands of the kernel's instructions.
using one_tensor_launch = tensors_launch<1>;

[[nodiscard]] inline one_tensor_launch only_group(const tensor_launch& launch) {
  one_tensor_launch one;
  one.groups[0] = launch.groups[0];
  one.first_cta[1] = launch.first_cta[1];
  one.n_groups = 1;
  one.totals = launch.totals;
  one.waiting[0] = launch.waiting[0];
  one.order_words[0] = launch.order_words[0];
  return one;
}

/// Division by a constant, for n < 2^31.
struct divider {
  std::uint32_t divisor = 1;
  std::uint32_t factor = 0;
  std::uint32_t shift = 0;
};

/// Pages of pools; strides in bytes. Values are counted in (token, head, i) order.
struct page_geometry {
  std::uint64_t page_stride = 0, token_stride = 0, head_stride = 0, value_stride = 0;
  std::uint32_t page_values = 0;
  std::uint32_t n_blocks = 0;
  divider by_page, by_dim, by_heads;  ///< of groups of eight values where `in_eights`, else of values
  bool in_eights = false;             ///< eight consecutive values lie together and aligned
  bool tile_in_page = false;          ///< no tile spans two pages
  bool whole_tiles = false;           ///< a tile lies in one page, together and aligned
};

inline constexpr std::uint32_t kMaxPools = 256;

struct page_launch {
  std::uint8_t* pools[kMaxPools];
  page_geometry pages;
  frame_shape shape;
  std::uint64_t header[kHeaderWords] = {};
  const std::int32_t* page_ids = nullptr;
  std::uint8_t* frames = nullptr;
  std::uint64_t frame_stride = 0;
  const std::uint8_t* codebooks = nullptr;
  result_slot* results = nullptr;
  const result_slot* where = nullptr;  ///< decode: results of encoding, or null
  std::uint8_t* overflow = nullptr;
  std::uint64_t overflow_stride = 0;
  std::uint32_t* overflow_used = nullptr;
  std::uint32_t overflow_places = 0;
  std::uint32_t n_groups = 0;
  std::uint32_t n_frames = 1;  ///< of a group: 1 (gathered) or pages (slots)
  std::uint32_t n_pages = 0;   ///< of a frame
  std::uint32_t ctas_per_group = 1;
  frame_totals* totals = nullptr;
  std::uint32_t* waiting = nullptr;  ///< canonical order
  std::uint64_t waiting_stride = 0;  ///< words a frame
  std::uint32_t* order_words = nullptr;
  std::uint32_t order_blocks = 0;  ///< of a frame
};

}  // namespace tersor::cuda
