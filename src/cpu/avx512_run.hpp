// Runs of tiles: what one tile's deep levels wait for is hidden behind another tile's level 1. Part of
// avx512.cpp only.
#pragma once

#include "cpu/avx512_decode.hpp"
#include "cpu/avx512_encode.hpp"
#include "cpu/avx512_join.hpp"
#include "cpu/avx512_split.hpp"

TERSOR_TARGET_BEGIN(TERSOR_TARGET_AVX512)
namespace {
namespace avx512 {

template <class Split, class Byte>
TERSOR_VEC rest_tile<Byte> tile_of(const rest_tile<Byte>& first, std::size_t t) noexcept {
  rest_tile<Byte> rest;
  for (unsigned i = 0; i < Split::kBytePlanes; ++i) rest.bytes[i] = first.bytes[i] + kTileValues * t;
  if constexpr (Split::kField0 != 0)
    rest.fields[0] = first.fields[0] + Split::kField0 * (kTileValues / 8) * t;
  if constexpr (Split::kField1 != 0)
    rest.fields[1] = first.fields[1] + Split::kField1 * (kTileValues / 8) * t;
  return rest;
}

/// A tile between its code plane and its tail.
struct encoder_slot {
  alignas(64) std::array<std::uint8_t, kTileValues> symbols;
  open_values open;
  bool escapes = false;
};

template <class Places>
struct rank_steps {
  static constexpr std::size_t kCodeBytes = 2 * (kTileValues / 8);
  const coding& c;
  Places places;

  template <bool Stream>
  TERSOR_VEC void codes(encoder_slot& slot, std::uint8_t* code_plane) const noexcept {
    slot.open.n = 0;
    put_level1<Stream>(places, slot.symbols.data(), code_plane, slot.open);
  }
  TERSOR_VEC coded_tile tail(const encoder_slot& slot, std::uint8_t* to) const noexcept {
    return put_rank_tail(c, places, slot.symbols.data(), slot.open, to);
  }
};

template <class Places>
struct top16_steps {
  static constexpr std::size_t kCodeBytes = 4 * (kTileValues / 8);
  const coding& c;
  Places places;

  template <bool Stream>
  TERSOR_VEC void codes(encoder_slot& slot, std::uint8_t* code_plane) const noexcept {
    slot.escapes = put_top16<Stream>(places, slot.symbols.data(), code_plane);
  }
  TERSOR_VEC coded_tile tail(const encoder_slot& slot, std::uint8_t* to) const noexcept {
    return close_tail(c, to, slot.escapes ? put_escapes(places, slot.symbols.data(), to) : to, slot.escapes);
  }
};

template <class Steps>
TERSOR_VEC void put_codes(const Steps& steps, encoder_slot& slot, std::uint8_t* code_plane,
                          bool stream) noexcept {
  if (stream && is_aligned(code_plane)) return steps.template codes<true>(slot, code_plane);
  steps.template codes<false>(slot, code_plane);
}

/// Writes the tail of tile `t`, raw if that is not longer; returns its words.
template <class Steps>
TERSOR_VEC std::uint32_t put_tail(const Steps& steps, const encoder_slot& slot, std::uint32_t t,
                                  std::uint8_t* code_plane, std::uint8_t* to, tile_run& run) noexcept {
  const coded_tile coded = steps.tail(slot, to);
  std::uint32_t words = coded.words;
  if (words == kTileNotCoded) {
    encode_raw_tile(steps.c.plan, slot.symbols.data(), code_plane + Steps::kCodeBytes * t, to);
    words = steps.c.plan.raw_words();
    run.raw = static_cast<std::uint8_t>(run.raw | (1u << t));
  } else if (coded.escapes) {
    run.escapes = static_cast<std::uint8_t>(run.escapes | (1u << t));
  }
  run.words[t] = static_cast<std::uint8_t>(words);
  return words;
}

template <class Split, class Steps>
std::uint32_t run_encoder(const Steps& steps, const std::uint8_t* values, const rest_out& rest,
                          std::uint8_t* code_plane, std::uint8_t* tails, tile_run& run,
                          bool stream) noexcept {
  encoder_slot slots[2];
  std::uint32_t words = 0;
  for (std::uint32_t t = 0; t < run.n_tiles; ++t) {
    encoder_slot& slot = slots[t % 2];
    const std::uint8_t* tile = values + std::size_t{kTileValues} * Split::kValueBytes * t;
    split<Split>(tile, tile_of<Split>(rest, t), slot.symbols.data(), run.sums[t], stream);
    put_codes(steps, slot, code_plane + Steps::kCodeBytes * t, stream);
    if (t > 0) words += put_tail(steps, slots[(t - 1) % 2], t - 1, code_plane, tails + 4 * words, run);
  }
  const std::uint32_t last = run.n_tiles - 1;
  return words + put_tail(steps, slots[last % 2], last, code_plane, tails + 4 * words, run);
}

template <class Split, template <class> class Steps>
std::uint32_t encode_run(const coding& c, const std::uint8_t* values, const rest_out& rest,
                         std::uint8_t* code_plane, std::uint8_t* tails, tile_run& run, bool stream) noexcept {
  if (is_near(c)) {
    const Steps<near_places> steps{c, near_places(c)};
    return run_encoder<Split>(steps, values, rest, code_plane, tails, run, stream);
  }
  const Steps<all_places> steps{c, all_places(c)};
  return run_encoder<Split>(steps, values, rest, code_plane, tails, run, stream);
}

template <class Split>
bool decode_rank_run(const coding& c, const rest_in& rest, const std::uint8_t* code_plane,
                     const std::uint8_t* tails, std::uint8_t* values, tile_run& run, bool stream) noexcept {
  constexpr std::size_t kCodeBytes = 2 * (kTileValues / 8);
  level_symbols slots[2];
  alignas(64) std::array<std::uint8_t, kTileValues> symbols;
  const std::uint8_t* tail = tails;
  // Tile t's deep levels are decoded one turn before its level 1; `t` runs one further for that.
  for (std::uint32_t t = 0; t <= run.n_tiles; ++t) {
    const std::uint8_t* deep_tail = tail;
    if (t < run.n_tiles) {
      const std::uint32_t words = run.words[t];
      tail += 4 * words;
      const bool raw = ((run.raw >> t) & 1) != 0;
      const bool escapes = ((run.escapes >> t) & 1) != 0;
      if (!raw && !decode_deep(c, code_plane + kCodeBytes * t, deep_tail, words, escapes, slots[t % 2]))
        return false;
    }
    if (t == 0) continue;
    const std::uint32_t done = t - 1;
    const std::uint8_t* codes = code_plane + kCodeBytes * done;
    if (((run.raw >> done) & 1) != 0) {
      decode_raw_tile(c.plan, codes, deep_tail - 4 * run.words[done], symbols.data());
    } else {
      decode_level1(c, codes, slots[done % 2], symbols.data());
    }
    std::uint8_t* to = values + std::size_t{kTileValues} * Split::kValueBytes * done;
    join<Split>(tile_of<Split>(rest, done), symbols.data(), to, run.sums[done], stream);
  }
  return true;
}

template <class Split>
bool decode_top16_run(const coding& c, const rest_in& rest, const std::uint8_t* code_plane,
                      const std::uint8_t* tails, std::uint8_t* values, tile_run& run, bool stream) noexcept {
  constexpr std::size_t kCodeBytes = 4 * (kTileValues / 8);
  alignas(64) std::array<std::uint8_t, kTileValues> symbols;
  const std::uint8_t* tail = tails;
  for (std::uint32_t t = 0; t < run.n_tiles; ++t) {
    const std::uint8_t* codes = code_plane + kCodeBytes * t;
    if (((run.raw >> t) & 1) != 0) {
      decode_raw_tile(c.plan, codes, tail, symbols.data());
    } else if (!decode_top16(c, codes, tail, run.words[t], ((run.escapes >> t) & 1) != 0, symbols.data())) {
      return false;
    }
    tail += 4 * run.words[t];
    std::uint8_t* to = values + std::size_t{kTileValues} * Split::kValueBytes * t;
    join<Split>(tile_of<Split>(rest, t), symbols.data(), to, run.sums[t], stream);
  }
  return true;
}

}  // namespace avx512
}  // namespace
TERSOR_TARGET_END
