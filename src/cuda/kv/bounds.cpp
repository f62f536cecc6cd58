#include "cuda/kv/bounds.hpp"

#include <algorithm>

#include "codec/frame_codec.hpp"
#include "core/checked.hpp"

namespace tersor::cuda {

std::optional<format::frame_layout> largest_layout(codec c, dtype type, std::uint64_t n_values) noexcept {
  if (!is_gpu_codec(c) || !is_gpu_dtype(type)) return std::nullopt;
  const codec_detail::level_plan plan =
      codec_detail::make_plan(c, codec_detail::find_planes(type)->symbol_bits);
  const auto tail_words =
      core::checked_mul(core::ceil_div(n_values, codec_detail::kTileValues), plan.raw_words());
  if (!tail_words) return std::nullopt;
  return format::make_layout(codec_detail::plane_sizes_of(c, type, n_values), n_values, *tail_words);
}

std::uint64_t raw_frame_size(dtype type, std::uint64_t n_values) noexcept {
  const auto layout =
      format::make_layout(codec_detail::plane_sizes_of(codec::raw, type, n_values), n_values, 0);
  return layout ? layout->frame_bytes : 0;
}

std::uint64_t frame_bound(codec c, dtype type, std::uint64_t n_values) noexcept {
  const auto coded = largest_layout(c, type, n_values);
  const std::uint64_t raw = raw_frame_size(type, n_values);
  return coded && raw != 0 ? std::max(coded->frame_bytes, raw) : 0;
}

}  // namespace tersor::cuda
