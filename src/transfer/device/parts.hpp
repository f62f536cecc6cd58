// How a transfer is cut into parts (one launch each) and pieces (one frame each). No CUDA in here.
#pragma once

#include <vector>

#include <tersor/device_link.hpp>

namespace tersor::transfer::device {

/// Frames of one launch.
inline constexpr std::uint32_t kMostPieces = 14;
/// Values of a chunk of a frame: pieces are cut at multiples of it.
inline constexpr std::uint64_t kCutValues = 8192;
inline constexpr std::uint64_t kFrameAlignment = 128;

/// Values [first, first + n_values) of a region, and its frame's place.
struct piece {
  std::uint32_t region = 0;
  std::uint64_t first_value = 0, n_values = 0;
  std::uint64_t slot_at = 0;   ///< in the part's slot
  std::uint64_t store_at = 0;  ///< in a store that holds all pieces
  std::uint64_t capacity = 0;  ///< the frame's bound
};
struct part {
  std::size_t first_piece = 0;
  std::uint32_t n_pieces = 0;
};
struct part_plan {
  std::vector<piece> pieces;
  std::vector<part> parts;
  std::uint64_t n_bytes = 0;      ///< of values
  std::uint64_t store_bytes = 0;  ///< of all pieces
};

struct part_rule {
  codec code = codec::rank;
  dtype type = dtype::bf16;
  part_sizes sizes;
  /// Parts grow by this factor from the first on, which is small where the link waits for it; 0: they do not.
  std::uint32_t growth = 2;
  /// Parts become small again towards the end: for methods whose last step is not hidden.
  bool taper = false;
};
/// How a method cuts. Pulling and copying begin when the first part is encoded; pushing is encoding. Decoding
/// the last part is hidden in pulling alone.
[[nodiscard]] part_rule rule_of(link_method method, codec c, dtype type, const part_sizes& sizes) noexcept;

/// Errors: `invalid_argument` (sizes that no part fits), `unsupported`, `size_overflow`.
[[nodiscard]] status check_rule(const part_rule& rule);
[[nodiscard]] result<part_plan> plan_parts(std::span<const link_region> regions, const part_rule& rule);

/// Bytes of one slot; 0 if it leaves 63 bits or the GPU does not code this.
[[nodiscard]] std::uint64_t slot_bytes(codec c, dtype type, const part_sizes& sizes) noexcept;

/// Runs of values that lie together in the source and in the destination, for copies of raw values.
struct raw_run {
  const void* src = nullptr;
  void* dst = nullptr;
  std::uint64_t n_bytes = 0;
};
[[nodiscard]] std::vector<raw_run> merge_runs(std::span<const link_region> regions, dtype type);

}  // namespace tersor::transfer::device
