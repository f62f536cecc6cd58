// The backend for AArch64, where NEON is always there. BF16 and both codecs are vectors; other dtypes take
// the portable splits and this backend's codecs.
#include "cpu/backends.hpp"
#include "cpu/neon_rank.hpp"
#include "cpu/neon_top16.hpp"

namespace tersor::cpu {

const codec_detail::tile_ops& neon_ops() noexcept {
  static constexpr codec_detail::tile_ops kOps = {
      .name = "neon",
      .split = {neon::split_bf16, portable::split<codec_detail::f16_split, neon::nh>,
                portable::split<codec_detail::f32_split, neon::nh>,
                portable::split<codec_detail::e4m3_split, neon::nh>,
                portable::split<codec_detail::e5m2_split, neon::nh>},
      .join = {neon::join_bf16, portable::join<codec_detail::f16_split, neon::nh>,
               portable::join<codec_detail::f32_split, neon::nh>,
               portable::join<codec_detail::e4m3_split, neon::nh>,
               portable::join<codec_detail::e5m2_split, neon::nh>},
      .encode = {neon::encode_top16, neon::encode_rank},
      .decode = {neon::decode_top16, neon::decode_rank},
      .count = {portable::count<codec_detail::bf16_split>, portable::count<codec_detail::f16_split>,
                portable::count<codec_detail::f32_split>, portable::count<codec_detail::e4m3_split>,
                portable::count<codec_detail::e5m2_split>},
      .nh = neon::nh,
      .finish = portable::finish,
  };
  return kOps;
}

}  // namespace tersor::cpu
