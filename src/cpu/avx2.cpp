// The backend for x86-64 CPUs with AVX2 and BMI2. BF16 and both codecs are vectors; other dtypes take the
// portable splits, compiled for AVX2, and this backend's codecs.
#include "cpu/avx2_rank.hpp"
#include "cpu/avx2_top16.hpp"
#include "cpu/backends.hpp"

namespace tersor::cpu {

const codec_detail::tile_ops& avx2_ops() noexcept {
  static constexpr codec_detail::tile_ops kOps = {
      .name = "avx2",
      .split = {avx2::split_bf16, portable::split<codec_detail::f16_split, avx2::nh>,
                portable::split<codec_detail::f32_split, avx2::nh>,
                portable::split<codec_detail::e4m3_split, avx2::nh>,
                portable::split<codec_detail::e5m2_split, avx2::nh>},
      .join = {avx2::join_bf16, portable::join<codec_detail::f16_split, avx2::nh>,
               portable::join<codec_detail::f32_split, avx2::nh>,
               portable::join<codec_detail::e4m3_split, avx2::nh>,
               portable::join<codec_detail::e5m2_split, avx2::nh>},
      .encode = {avx2::encode_top16, avx2::encode_rank},
      .decode = {avx2::decode_top16, avx2::decode_rank},
      .count = {portable::count<codec_detail::bf16_split>, portable::count<codec_detail::f16_split>,
                portable::count<codec_detail::f32_split>, portable::count<codec_detail::e4m3_split>,
                portable::count<codec_detail::e5m2_split>},
      .nh = avx2::nh,
      .finish = avx2::finish,
  };
  return kOps;
}

}  // namespace tersor::cpu
