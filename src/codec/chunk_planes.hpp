// Addresses of one tile inside a frame.
#pragma once

#include "codec/frame_codec.hpp"

namespace tersor::codec_detail {

template <class Byte>
struct tile_place {
  rest_tile<Byte> rest;
  Byte* code_plane = nullptr;
};

template <class Byte>
[[nodiscard]] inline tile_place<Byte> place_of(Byte* frame, const format::frame_layout& layout,
                                               const dtype_planes& planes, const level_plan& plan,
                                               std::uint64_t tile) noexcept {
  tile_place<Byte> place;
  for (std::size_t i = 0; i < planes.byte_planes; ++i) {
    place.rest.bytes[i] = frame + layout.byte_planes[i] + tile * kTileValues;
  }
  for (std::size_t i = 0; i < planes.field_widths.size(); ++i) {
    if (planes.field_widths[i] == 0) continue;
    place.rest.fields[i] =
        frame + layout.field_planes[i] + tile * (planes.field_widths[i] * (kTileValues / 8));
  }
  place.code_plane = frame + layout.code_plane + tile * plan.code_plane_bytes();
  return place;
}

}  // namespace tersor::codec_detail
