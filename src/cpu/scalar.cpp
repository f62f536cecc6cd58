// The reference backend: runs on any CPU of any byte order.
#include "cpu/backends.hpp"
#include "cpu/portable_tile.hpp"

namespace tersor::cpu {

const codec_detail::tile_ops& scalar_ops() noexcept {
  static constexpr codec_detail::tile_ops kOps = {
      .name = "scalar",
      .split = {portable::split<codec_detail::bf16_split>, portable::split<codec_detail::f16_split>,
                portable::split<codec_detail::f32_split>, portable::split<codec_detail::e4m3_split>,
                portable::split<codec_detail::e5m2_split>},
      .join = {portable::join<codec_detail::bf16_split>, portable::join<codec_detail::f16_split>,
               portable::join<codec_detail::f32_split>, portable::join<codec_detail::e4m3_split>,
               portable::join<codec_detail::e5m2_split>},
      .encode = {portable::encode, portable::encode},
      .decode = {portable::decode, portable::decode},
      .count = {portable::count<codec_detail::bf16_split>, portable::count<codec_detail::f16_split>,
                portable::count<codec_detail::f32_split>, portable::count<codec_detail::e4m3_split>,
                portable::count<codec_detail::e5m2_split>},
      .nh = portable::nh,
      .finish = portable::finish,
  };
  return kOps;
}

}  // namespace tersor::cpu
