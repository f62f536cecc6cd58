// The AVX-512 backend: F, BW, DQ, VL, VBMI and VBMI2 (Ice Lake, Zen 4 and later).
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the "undefined" operand inside its own intrinsics for a mistake of their caller.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include "cpu/avx512_count.hpp"
#include "cpu/avx512_packed.hpp"
#include "cpu/avx512_run.hpp"
#include "cpu/backends.hpp"

namespace {
namespace avx512 {

/// Stores past the caches become visible to other cores.
void finish() noexcept {
  _mm_sfence();
}

}  // namespace avx512
}  // namespace

namespace tersor::cpu {

const codec_detail::tile_ops& avx512_ops() noexcept {
  static constexpr codec_detail::tile_ops kOps = {
      .name = "avx512",
      .split = {avx512::split<codec_detail::bf16_split>, avx512::split<codec_detail::f16_split>,
                avx512::split<codec_detail::f32_split>, avx512::split<codec_detail::e4m3_split>,
                avx512::split<codec_detail::e5m2_split>},
      .join = {avx512::join<codec_detail::bf16_split>, avx512::join<codec_detail::f16_split>,
               avx512::join<codec_detail::f32_split>, avx512::join<codec_detail::e4m3_split>,
               avx512::join<codec_detail::e5m2_split>},
      .encode = {avx512::encode_top16, avx512::encode_rank},
      .decode = {avx512::decode_top16, avx512::decode_rank},
      .count = {avx512::count<codec_detail::bf16_split>, avx512::count<codec_detail::f16_split>,
                avx512::count<codec_detail::f32_split>, avx512::count<codec_detail::e4m3_split>,
                avx512::count<codec_detail::e5m2_split>},
      .nh = avx512::nh,
      .finish = avx512::finish,
      .encode_run = {{{avx512::encode_run<codec_detail::bf16_split, avx512::top16_steps>,
                       avx512::encode_run<codec_detail::f16_split, avx512::top16_steps>,
                       avx512::encode_run<codec_detail::f32_split, avx512::top16_steps>,
                       avx512::encode_run<codec_detail::e4m3_split, avx512::top16_steps>,
                       avx512::encode_run<codec_detail::e5m2_split, avx512::top16_steps>},
                      {avx512::encode_run<codec_detail::bf16_split, avx512::rank_steps>,
                       avx512::encode_run<codec_detail::f16_split, avx512::rank_steps>,
                       avx512::encode_run<codec_detail::f32_split, avx512::rank_steps>,
                       avx512::encode_run<codec_detail::e4m3_split, avx512::rank_steps>,
                       avx512::encode_run<codec_detail::e5m2_split, avx512::rank_steps>}}},
      .decode_run = {{{avx512::decode_top16_run<codec_detail::bf16_split>,
                       avx512::decode_top16_run<codec_detail::f16_split>,
                       avx512::decode_top16_run<codec_detail::f32_split>,
                       avx512::decode_top16_run<codec_detail::e4m3_split>,
                       avx512::decode_top16_run<codec_detail::e5m2_split>},
                      {avx512::decode_rank_run<codec_detail::bf16_split>,
                       avx512::decode_rank_run<codec_detail::f16_split>,
                       avx512::decode_rank_run<codec_detail::f32_split>,
                       avx512::decode_rank_run<codec_detail::e4m3_split>,
                       avx512::decode_rank_run<codec_detail::e5m2_split>}}},
      .count_block = avx512::count_block,
      .map_block = avx512::map_block,
  };
  return kOps;
}

}  // namespace tersor::cpu
