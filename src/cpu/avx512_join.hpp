// Symbols and rest planes to values, with the digest on the way. Part of avx512.cpp only.
#pragma once

#include "codec/dtype_traits.hpp"
#include "cpu/avx512_nh.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// How far ahead of the tile at work its successors' rest bytes are fetched, in bytes.
constexpr std::uintptr_t kJoinAhead = 4096;

constexpr words8 kZip = {0, 4, 1, 5, 2, 6, 3, 7};

/// 64 low and 64 high bytes -> 64 16-bit values. Unpacking works within 16 bytes, so the granules are dealt
/// out first.
TERSOR_VEC vec_pair zip(vec low, vec high) noexcept {
  const vec order = load(kZip.data());
  const vec l = _mm512_permutexvar_epi64(order, low);
  const vec h = _mm512_permutexvar_epi64(order, high);
  return {_mm512_unpacklo_epi8(l, h), _mm512_unpackhi_epi8(l, h)};
}

/// The low and high bytes of BF16 values. The shifts by 16-bit lanes soil only bits that the masks drop.
TERSOR_VEC vec_pair bf16_bytes(vec symbol, vec rest) noexcept {
  const vec low = select(splat(0x7f), rest, _mm512_slli_epi16(symbol, 7));
  const vec high = select(splat(0x7f), _mm512_srli_epi16(symbol, 1), rest);
  return {low, high};
}

template <bool Stream, bool FirstRow>
TERSOR_VEC void join_bf16_row(const std::uint8_t* rest, const std::uint8_t* symbols, std::uint8_t* values,
                              unsigned s, nh_row_state& digest) noexcept {
  each_of_4([&](auto g) __attribute__((always_inline)) {
    const unsigned at = 256 * s + 64 * g;
    prefetch(rest + at, kJoinAhead);
    const vec_pair bytes = bf16_bytes(load(symbols + at), load(rest + at));
    const vec_pair out = zip(bytes.low, bytes.high);
    put<Stream>(values + 2 * at, out.low);
    put<Stream>(values + 2 * at + kVec, out.high);
    digest.add<2 * g, FirstRow>(out.low, s);
    digest.add<2 * g + 1, FirstRow>(out.high, s);
  });
}

template <bool Stream>
TERSOR_VEC void join_tile(bf16_split, const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values,
                          nh_sums& sums) noexcept {
  nh_row_state digest;
  join_bf16_row<Stream, true>(rest.bytes[0], symbols, values, 0, digest);
  for (unsigned s = 1; s < kRows; ++s)
    join_bf16_row<Stream, false>(rest.bytes[0], symbols, values, s, digest);
  digest.finish(sums);
}

template <bool Stream>
TERSOR_VEC void join_tile(f16_split, const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values,
                          nh_sums& sums) noexcept {
  nh_state<2> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad a;
    quad b;
    const vec two = load(rest.fields[0] + 64 * g);
    const auto signs = unpack1(rest.fields[1] + 32 * g);
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = 256 * s + 64 * g;
      prefetch(rest.bytes[0] + at, kJoinAhead);
      const vec high = select(splat(3), unpack2(two, s), _mm512_slli_epi16(load(symbols + at), 2));
      const vec_pair out =
          zip(load(rest.bytes[0] + at), _mm512_mask_add_epi8(high, signs[s], high, splat(0x80)));
      put<Stream>(values + 2 * at, out.low);
      put<Stream>(values + 2 * at + kVec, out.high);
      a.v[s] = out.low;
      b.v[s] = out.high;
    }
    digest.add(a, 128 * g);
    digest.add(b, 128 * g + kVec);
  }
  digest.finish(sums);
}

constexpr bytes64 kZip4 = make_bytes([](unsigned i) { return 16 * (i & 3) + (i >> 2); });

/// The inverse of unzip4: byte i of 64 32-bit values from vector i.
TERSOR_VEC quad zip4(const quad& in) noexcept {
  const vec low01 = _mm512_shuffle_i64x2(in.v[0], in.v[1], 0x44);
  const vec high01 = _mm512_shuffle_i64x2(in.v[0], in.v[1], 0xEE);
  const vec low23 = _mm512_shuffle_i64x2(in.v[2], in.v[3], 0x44);
  const vec high23 = _mm512_shuffle_i64x2(in.v[2], in.v[3], 0xEE);
  const quad v = {{_mm512_shuffle_i64x2(low01, low23, 0x88), _mm512_shuffle_i64x2(low01, low23, 0xDD),
                   _mm512_shuffle_i64x2(high01, high23, 0x88), _mm512_shuffle_i64x2(high01, high23, 0xDD)}};
  const vec order = load(kZip4.data());
  return {{_mm512_permutexvar_epi8(order, v.v[0]), _mm512_permutexvar_epi8(order, v.v[1]),
           _mm512_permutexvar_epi8(order, v.v[2]), _mm512_permutexvar_epi8(order, v.v[3])}};
}

template <bool Stream>
TERSOR_VEC void join_tile(f32_split, const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values,
                          nh_sums& sums) noexcept {
  nh_state<4> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad rows[4];
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = 256 * s + 64 * g;
      for (unsigned i = 0; i < 3; ++i) prefetch(rest.bytes[i] + at, kJoinAhead);
      const vec_pair top = bf16_bytes(load(symbols + at), load(rest.bytes[2] + at));
      const quad out = zip4({{load(rest.bytes[0] + at), load(rest.bytes[1] + at), top.low, top.high}});
      for (unsigned i = 0; i < 4; ++i) {
        put<Stream>(values + 4 * at + kVec * i, out.v[i]);
        rows[i].v[s] = out.v[i];
      }
    }
    for (unsigned i = 0; i < 4; ++i) digest.add(rows[i], 256 * g + kVec * i);
  }
  digest.finish(sums);
}

template <bool Stream>
TERSOR_VEC void join_tile(e4m3_split, const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values,
                          nh_sums& sums) noexcept {
  nh_state<1> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    const quad four = unpack4(rest.fields[0] + 128 * g);
    quad out;
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = 256 * s + 64 * g;
      const vec sign_symbol =
          select(splat(0x80), _mm512_slli_epi16(four.v[s], 4), _mm512_slli_epi16(load(symbols + at), 3));
      out.v[s] = select(splat(7), four.v[s], sign_symbol);
      put<Stream>(values + at, out.v[s]);
    }
    digest.add(out, 64 * g);
  }
  digest.finish(sums);
}

template <bool Stream>
TERSOR_VEC void join_tile(e5m2_split, const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values,
                          nh_sums& sums) noexcept {
  nh_state<1> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    const vec two = load(rest.fields[0] + 64 * g);
    const auto signs = unpack1(rest.fields[1] + 32 * g);
    quad out;
    for (unsigned s = 0; s < kRows; ++s) {
      const unsigned at = 256 * s + 64 * g;
      const vec low = select(splat(3), unpack2(two, s), _mm512_slli_epi16(load(symbols + at), 2));
      out.v[s] = _mm512_mask_add_epi8(low, signs[s], low, splat(0x80));
      put<Stream>(values + at, out.v[s]);
    }
    digest.add(out, 64 * g);
  }
  digest.finish(sums);
}

template <class Split>
void join(const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values, nh_sums& sums,
          bool stream) noexcept {
  if (!stream) return join_tile<false>(Split{}, rest, symbols, values, sums);
  if (is_aligned(values)) return join_tile<true>(Split{}, rest, symbols, values, sums);
  alignas(64) std::array<std::uint8_t, Split::kValueBytes * kTileValues> staged;
  join_tile<false>(Split{}, rest, symbols, staged.data(), sums);
  stream_unaligned(values, staged.data(), staged.size());
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
