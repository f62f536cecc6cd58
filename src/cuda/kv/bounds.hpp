// Sizes of frames before they are made, for the dtypes and codecs that the GPU encodes. No CUDA in here.
#pragma once

#include <cstdint>
#include <optional>

#include "format/frame_header.hpp"
#include <tersor/tensor.hpp>

namespace tersor::cuda {

[[nodiscard]] constexpr bool is_gpu_dtype(dtype type) noexcept {
  return type == dtype::bf16 || type == dtype::f16 || type == dtype::f8_e4m3 || type == dtype::f8_e5m2;
}

[[nodiscard]] constexpr bool is_gpu_codec(codec c) noexcept {
  return c == codec::rank || c == codec::top16;
}

/// Layout of the largest coded frame: every tile raw. nullopt if a size leaves 63 bits or the GPU does not
/// encode codec and dtype.
[[nodiscard]] std::optional<format::frame_layout> largest_layout(codec c, dtype type,
                                                                 std::uint64_t n_values) noexcept;

/// Bytes that a frame of `n_values` values, coded or raw, needs at most; 0 where largest_layout has none.
[[nodiscard]] std::uint64_t frame_bound(codec c, dtype type, std::uint64_t n_values) noexcept;

/// Size of the raw frame; 0 if it leaves 63 bits.
[[nodiscard]] std::uint64_t raw_frame_size(dtype type, std::uint64_t n_values) noexcept;

}  // namespace tersor::cuda
