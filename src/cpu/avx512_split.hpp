// Values to symbols and rest planes, with the digest on the way. Part of avx512.cpp only.
#pragma once

#include "cpu/avx512_nh.hpp"

namespace {
namespace avx512 {

/// How far ahead of the tile at work its successors' values are fetched, in bytes.
constexpr std::uintptr_t kSplitAhead = 4096;

constexpr bytes64 kEvenBytes = make_bytes([](unsigned i) { return 2 * i; });
constexpr bytes64 kOddBytes = make_bytes([](unsigned i) { return 2 * i + 1; });

/// Low and high bytes of 64 16-bit values.
TERSOR_VEC vec_pair unzip(vec a, vec b) noexcept {
  return {_mm512_permutex2var_epi8(a, load(kEvenBytes.data()), b), _mm512_permutex2var_epi8(a, load(kOddBytes.data()), b)};
}

struct bf16_parts {
  static constexpr unsigned kValueBytes = 2;
  vec rest;
  vec symbol;
  TERSOR_VEC explicit bf16_parts(const vec_pair& bytes) noexcept
      : rest(select(splat(0x7f), bytes.low, bytes.high)),
        // symbol = high << 1 | low >> 7; the shift by 16-bit lanes soils bits that the mask drops.
        symbol(select(splat(0x01), _mm512_srli_epi16(bytes.low, 7), _mm512_add_epi8(bytes.high, bytes.high))) {}
};

template <bool Stream>
TERSOR_VEC void split_bf16_tile(const std::uint8_t* values, std::uint8_t* plane, std::uint8_t* symbols,
                                nh_sums& sums) noexcept {
  nh_state<2> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad a;
    quad b;
    for (unsigned s = 0; s < kRows; ++s) {
      const std::uint8_t* at = values + 512 * s + 128 * g;
      prefetch(at, kSplitAhead);
      prefetch(at, kSplitAhead + kVec);
      a.v[s] = load(at);
      b.v[s] = load(at + kVec);
      const bf16_parts parts(unzip(a.v[s], b.v[s]));
      put<Stream>(plane + 256 * s + 64 * g, parts.rest);
      store(symbols + 256 * s + 64 * g, parts.symbol);
    }
    digest.add(a, 128 * g);
    digest.add(b, 128 * g + kVec);
  }
  digest.finish(sums);
}

void split_bf16(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
                bool stream) noexcept {
  if (!stream) return split_bf16_tile<false>(values, rest.bytes[0], symbols, sums);
  if (is_aligned(rest.bytes[0])) return split_bf16_tile<true>(values, rest.bytes[0], symbols, sums);
  alignas(64) std::array<std::uint8_t, kTileValues> staged;
  split_bf16_tile<false>(values, staged.data(), symbols, sums);
  stream_unaligned(rest.bytes[0], staged.data(), staged.size());
}

void split_f16(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
               bool /*stream*/) noexcept {
  nh_state<2> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad a;
    quad b;
    quad two;
    std::array<std::uint64_t, 4> signs;
    for (unsigned s = 0; s < kRows; ++s) {
      const std::uint8_t* at = values + 512 * s + 128 * g;
      a.v[s] = load(at);
      b.v[s] = load(at + kVec);
      const vec_pair bytes = unzip(a.v[s], b.v[s]);
      store(rest.bytes[0] + 256 * s + 64 * g, bytes.low);
      store(symbols + 256 * s + 64 * g, _mm512_and_si512(_mm512_srli_epi16(bytes.high, 2), splat(0x1f)));
      two.v[s] = _mm512_and_si512(bytes.high, splat(3));
      signs[s] = _mm512_movepi8_mask(bytes.high);
    }
    digest.add(a, 128 * g);
    digest.add(b, 128 * g + kVec);
    store(rest.fields[0] + 64 * g, pack2(two));
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

void split_f32(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
               bool /*stream*/) noexcept {
  nh_state<4> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad rows[4];
    for (unsigned s = 0; s < kRows; ++s) {
      quad in;
      for (unsigned i = 0; i < 4; ++i) {
        in.v[i] = load(values + 1024 * s + 256 * g + kVec * i);
        rows[i].v[s] = in.v[i];
      }
      const quad bytes = unzip4(in);
      // The two high bytes of a value are a BF16 value.
      const bf16_parts top({bytes.v[2], bytes.v[3]});
      const unsigned at = 256 * s + 64 * g;
      store(rest.bytes[0] + at, bytes.v[0]);
      store(rest.bytes[1] + at, bytes.v[1]);
      store(rest.bytes[2] + at, top.rest);
      store(symbols + at, top.symbol);
    }
    for (unsigned i = 0; i < 4; ++i) digest.add(rows[i], 256 * g + kVec * i);
  }
  digest.finish(sums);
}

void split_e4m3(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
                bool /*stream*/) noexcept {
  nh_state<1> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad in;
    quad four;
    for (unsigned s = 0; s < kRows; ++s) {
      in.v[s] = load(values + 256 * s + 64 * g);
      store(symbols + 256 * s + 64 * g, _mm512_and_si512(_mm512_srli_epi16(in.v[s], 3), splat(0xf)));
      const vec sign = _mm512_and_si512(_mm512_srli_epi16(in.v[s], 4), splat(8));
      four.v[s] = select(splat(7), in.v[s], sign);
    }
    digest.add(in, 64 * g);
    const vec_pair plane = pack4(four);
    store(rest.fields[0] + 128 * g, plane.low);
    store(rest.fields[0] + 128 * g + kVec, plane.high);
  }
  digest.finish(sums);
}

void split_e5m2(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
                bool /*stream*/) noexcept {
  nh_state<1> digest;
  for (unsigned g = 0; g < kGroups; ++g) {
    quad in;
    quad two;
    std::array<std::uint64_t, 4> signs;
    for (unsigned s = 0; s < kRows; ++s) {
      in.v[s] = load(values + 256 * s + 64 * g);
      store(symbols + 256 * s + 64 * g, _mm512_and_si512(_mm512_srli_epi16(in.v[s], 2), splat(0x1f)));
      two.v[s] = _mm512_and_si512(in.v[s], splat(3));
      signs[s] = _mm512_movepi8_mask(in.v[s]);
    }
    digest.add(in, 64 * g);
    store(rest.fields[0] + 64 * g, pack2(two));
    pack1(signs, rest.fields[1] + 32 * g);
  }
  digest.finish(sums);
}

}  // namespace avx512
}  // namespace
