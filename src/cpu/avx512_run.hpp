// Runs of tiles: what one tile's deep levels wait for is hidden behind the next tile's level 1. Part of avx512.cpp only.
#pragma once

#include "cpu/avx512_decode.hpp"
#include "cpu/avx512_encode.hpp"
#include "cpu/avx512_join.hpp"
#include "cpu/avx512_split.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

template <class Split, class Byte>
TERSOR_VEC rest_tile<Byte> tile_of(const rest_tile<Byte>& first, std::uint32_t t) noexcept {
  rest_tile<Byte> rest;
  for (unsigned i = 0; i < Split::kBytePlanes; ++i) rest.bytes[i] = first.bytes[i] + std::size_t{kTileValues} * t;
  if constexpr (Split::kField0 != 0) rest.fields[0] = first.fields[0] + std::size_t{kTileValues / 8 * Split::kField0} * t;
  if constexpr (Split::kField1 != 0) rest.fields[1] = first.fields[1] + std::size_t{kTileValues / 8 * Split::kField1} * t;
  return rest;
}

/// A tile's symbols and what level 1 left of them.
struct encoder_slot {
  alignas(64) std::array<std::uint8_t, kTileValues> symbols;
  open_values open;
};

/// Codes the code plane of a tile; past the caches also where it is not aligned.
template <bool Rank, class Places>
TERSOR_VEC bool put_codes(const Places& places, encoder_slot& slot, std::uint8_t* code_plane, bool stream) noexcept {
  constexpr std::size_t kBytes = (Rank ? 2 : 4) * (kTileValues / 8);
  const auto put_at = [&]<bool Stream>(std::uint8_t* to) __attribute__((always_inline)) {
    if constexpr (!Rank) return put_top16<Stream>(places, slot.symbols.data(), to);
    slot.open.n = 0;
    put_level1<Stream>(places, slot.symbols.data(), to, slot.open);
    return false;
  };
  if (!stream) return put_at.template operator()<false>(code_plane);
  if (is_aligned(code_plane)) return put_at.template operator()<true>(code_plane);
  alignas(64) std::array<std::uint8_t, kBytes> staged;
  const bool escapes = put_at.template operator()<false>(staged.data());
  stream_unaligned(code_plane, staged.data(), kBytes);
  return escapes;
}
