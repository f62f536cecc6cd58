// Values to symbols and rest planes, with the digest on the way. Part of avx512.cpp only.
#pragma once

#include "codec/dtype_traits.hpp"
#include "cpu/avx512_nh.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

/// How far ahead of the tile at work its successors' values are fetched, in bytes.
constexpr std::uintptr_t kSplitAhead = 4096;

constexpr bytes64 kEvenBytes = make_bytes([](unsigned i) { return 2 * i; });
constexpr bytes64 kOddBytes = make_bytes([](unsigned i) { return 2 * i + 1; });

/// Low and high bytes of 64 16-bit values.
TERSOR_VEC vec_pair unzip(vec a, vec b) noexcept {
  return {_mm512_permutex2var_epi8(a, load(kEvenBytes.data()), b),
          _mm512_permutex2var_epi8(a, load(kOddBytes.data()), b)};
}

struct bf16_parts {
  static constexpr unsigned kValueBytes = 2;
  vec rest;
  vec symbol;
  TERSOR_VEC explicit bf16_parts(const vec_pair& bytes) noexcept
      : rest(select(splat(0x7f), bytes.low, bytes.high)),
        // symbol = high << 1 | low >> 7; the shift by 16-bit lanes soils bits that the mask drops.
        symbol(
            select(splat(0x01), _mm512_srli_epi16(bytes.low, 7), _mm512_add_epi8(bytes.high, bytes.high))) {}
};

template <bool Stream, bool FirstRow>
TERSOR_VEC void split_bf16_row(const std::uint8_t* values, std::uint8_t* rest, std::uint8_t* symbols,
                               unsigned s, nh_row_state& digest) noexcept {
  each_of_4([&](auto g) __attribute__((always_inline)) {
    const std::uint8_t* at = values + 512 * s + 128 * g;
    prefetch(at, kSplitAhead);
    prefetch(at, kSplitAhead + kVec);
    const vec a = load(at);
    const vec b = load(at + kVec);
    const bf16_parts parts(unzip(a, b));
    put<Stream>(rest + 256 * s + 64 * g, parts.rest);
    store(symbols + 256 * s + 64 * g, parts.symbol);
    digest.add<2 * g, FirstRow>(a, s);
    digest.add<2 * g + 1, FirstRow>(b, s);
  });
}

template <bool Stream>
TERSOR_VEC void split_tile(bf16_split, const std::uint8_t* values, const rest_out& rest,
                           std::uint8_t* symbols, nh_sums& sums) noexcept {
  nh_row_state digest;
  split_bf16_row<Stream, true>(values, rest.bytes[0], symbols, 0, digest);
  for (unsigned s = 1; s < kRows; ++s)
    split_bf16_row<Stream, false>(values, rest.bytes[0], symbols, s, digest);
  digest.finish(sums);
}

template <bool Stream>
TERSOR_VEC void split_tile(f16_split, const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols,
                           nh_sums& sums) noexcept {
  nh_state<2> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad a;
    quad b;
    quad two;
    std::array<std::uint64_t, 4> signs;
    for (unsigned s = 0; s < kRows; ++s) {
      const std::uint8_t* at = values + 512 * s + 128 * g;
      prefetch(at, kSplitAhead);
      prefetch(at, kSplitAhead + kVec);
      a.v[s] = load(at);
      b.v[s] = load(at + kVec);
      const vec_pair bytes = unzip(a.v[s], b.v[s]);
      put<Stream>(rest.bytes[0] + 256 * s + 64 * g, bytes.low);
      store(symbols + 256 * s + 64 * g, _mm512_and_si512(_mm512_srli_epi16(bytes.high, 2), splat(0x1f)));
      two.v[s] = _mm512_and_si512(bytes.high, splat(3));
      signs[s] = _mm512_movepi8_mask(bytes.high);
    }
    digest.add(a, 128 * g);
    digest.add(b, 128 * g + kVec);
    put<Stream>(rest.fields[0] + 64 * g, pack2(two));
    pack1(signs, rest.fields[1] + 32 * g);
  }
  digest.finish(sums);
}

constexpr bytes64 kUnzip4 = make_bytes([](unsigned i) { return 4 * (i & 15) + (i >> 4); });

/// Byte `i` of each of 64 32-bit values in vector i.
TERSOR_VEC quad unzip4(const quad& in) noexcept {
  const vec order = load(kUnzip4.data());
  vec v[4];
  for (unsigned i = 0; i < 4; ++i) v[i] = _mm512_permutexvar_epi8(order, in.v[i]);
  const vec low01 = _mm512_shuffle_i64x2(v[0], v[1], 0x44);
  const vec high01 = _mm512_shuffle_i64x2(v[0], v[1], 0xEE);
  const vec low23 = _mm512_shuffle_i64x2(v[2], v[3], 0x44);
  const vec high23 = _mm512_shuffle_i64x2(v[2], v[3], 0xEE);
  return {{_mm512_shuffle_i64x2(low01, low23, 0x88), _mm512_shuffle_i64x2(low01, low23, 0xDD),
           _mm512_shuffle_i64x2(high01, high23, 0x88), _mm512_shuffle_i64x2(high01, high23, 0xDD)}};
}

template <bool Stream>
TERSOR_VEC void split_tile(f32_split, const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols,
                           nh_sums& sums) noexcept {
  nh_state<4> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad rows[4];
    for (unsigned s = 0; s < kRows; ++s) {
      quad in;
      for (unsigned i = 0; i < 4; ++i) {
        const std::uint8_t* at = values + 1024 * s + 256 * g + kVec * i;
        prefetch(at, kSplitAhead);
        in.v[i] = load(at);
        rows[i].v[s] = in.v[i];
      }
      const quad bytes = unzip4(in);
      // The two high bytes of a value are a BF16 value.
      const bf16_parts top({bytes.v[2], bytes.v[3]});
      const unsigned at = 256 * s + 64 * g;
      put<Stream>(rest.bytes[0] + at, bytes.v[0]);
      put<Stream>(rest.bytes[1] + at, bytes.v[1]);
      put<Stream>(rest.bytes[2] + at, top.rest);
      store(symbols + at, top.symbol);
    }
    for (unsigned i = 0; i < 4; ++i) digest.add(rows[i], 256 * g + kVec * i);
  }
  digest.finish(sums);
}

template <bool Stream>
TERSOR_VEC void split_tile(e4m3_split, const std::uint8_t* values, const rest_out& rest,
                           std::uint8_t* symbols, nh_sums& sums) noexcept {
  nh_state<1> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad in;
    quad four;
    for (unsigned s = 0; s < kRows; ++s) {
      prefetch(values + 256 * s + 64 * g, kSplitAhead);
      in.v[s] = load(values + 256 * s + 64 * g);
      store(symbols + 256 * s + 64 * g, _mm512_and_si512(_mm512_srli_epi16(in.v[s], 3), splat(0xf)));
      const vec sign = _mm512_and_si512(_mm512_srli_epi16(in.v[s], 4), splat(8));
      four.v[s] = select(splat(7), in.v[s], sign);
    }
    digest.add(in, 64 * g);
    const vec_pair plane = pack4(four);
    put<Stream>(rest.fields[0] + 128 * g, plane.low);
    put<Stream>(rest.fields[0] + 128 * g + kVec, plane.high);
  }
  digest.finish(sums);
}

template <bool Stream>
TERSOR_VEC void split_tile(e5m2_split, const std::uint8_t* values, const rest_out& rest,
                           std::uint8_t* symbols, nh_sums& sums) noexcept {
  nh_state<1> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad in;
    quad two;
    std::array<std::uint64_t, 4> signs;
    for (unsigned s = 0; s < kRows; ++s) {
      prefetch(values + 256 * s + 64 * g, kSplitAhead);
      in.v[s] = load(values + 256 * s + 64 * g);
      store(symbols + 256 * s + 64 * g, _mm512_and_si512(_mm512_srli_epi16(in.v[s], 2), splat(0x1f)));
      two.v[s] = _mm512_and_si512(in.v[s], splat(3));
      signs[s] = _mm512_movepi8_mask(in.v[s]);
    }
    digest.add(in, 64 * g);
    put<Stream>(rest.fields[0] + 64 * g, pack2(two));
    pack1(signs, rest.fields[1] + 32 * g);
  }
  digest.finish(sums);
}

template <class Split, class Byte>
TERSOR_VEC bool is_aligned_rest(const rest_tile<Byte>& rest) noexcept {
  bool aligned = true;
  for (unsigned i = 0; i < Split::kBytePlanes; ++i) aligned = aligned && is_aligned(rest.bytes[i]);
  return aligned && is_aligned(rest.fields[0]) && is_aligned(rest.fields[1]);
}

template <class Split>
void split(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
           bool stream) noexcept {
  // Planes at other addresses would have to be staged, which costs more than it saves (join gains by it).
  if (stream && is_aligned_rest<Split>(rest)) return split_tile<true>(Split{}, values, rest, symbols, sums);
  split_tile<false>(Split{}, values, rest, symbols, sums);
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
