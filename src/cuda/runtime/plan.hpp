// Launches planned on the host: geometry, header, workspace and CTAs. Pure functions over plain structs,
// testable without a GPU.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/codec/launch.hpp"
#include <tersor/cuda.hpp>

namespace tersor::cuda {

// A workspace begins with what one call leaves zero for the next: totals of up to kMaxTensors frames, then
// the counts of one histogram. What lies behind is cleared by the call that uses it.
inline constexpr std::uint64_t kCountsAt = 1024;
inline constexpr std::uint64_t kCountsBytes = 256 * 8 + 16;
inline constexpr std::uint64_t kScratchAt = 4096;
static_assert(kMaxTensors * sizeof(frame_totals) <= kCountsAt);

/// Geometry and header image of a frame; `n_bytes` = bytes at hand for it.
struct frame_plan {
  frame_shape shape;
  std::uint64_t header[kHeaderWords] = {};
  std::uint64_t worst_tail_words = 0;
};
/// Errors: `unsupported` (codec or dtype, more than 2^42 values), `size_overflow`, `invalid_argument`
/// (shape).
[[nodiscard]] result<frame_plan> plan_frame(codec c, dtype type, std::span<const std::uint64_t> shape,
                                            std::uint64_t n_bytes);

/// CTAs of each of a launch's groups for their numbers of chunks: as many as run at once, shared out in
/// proportion.
void share_ctas(tensor_launch& launch, std::uint64_t at_once);

/// The same for `n_groups` groups of `chunks` chunks each.
[[nodiscard]] std::uint32_t ctas_of_group(std::uint64_t at_once, std::uint32_t n_groups,
                                          std::uint64_t chunks) noexcept;

/// Bytes behind kScratchAt that canonical order needs for these frames, and where the parts lie.
struct order_scratch {
  std::uint64_t cleared_bytes = 0;  ///< block sums, from kScratchAt on
  std::uint64_t n_bytes = 0;        ///< block sums and waiting tails
};
[[nodiscard]] order_scratch place_order_scratch(std::span<const frame_plan> plans, std::byte* scratch,
                                                tensor_launch* launch) noexcept;

/// Fills what depends on the layout of pages alone. Errors: as plan_frame, and `invalid_argument` for layouts
/// whose pages overlap or are empty.
[[nodiscard]] result<page_geometry> plan_pages(const kv::page_layout& layout, std::uint64_t frame_values,
                                               std::span<void* const> pools);

/// Division by `divisor` (>= 1) of numbers below 2^31.
[[nodiscard]] divider make_divider(std::uint32_t divisor) noexcept;

}  // namespace tersor::cuda
