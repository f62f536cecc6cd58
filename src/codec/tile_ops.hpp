// The primitives that a CPU backend supplies; the frame algorithm is written once over this table.
#pragma once

#include <array>
#include <cstdint>

#include "codec/coding.hpp"
#include "codec/digest.hpp"

namespace tersor::codec_detail {

inline constexpr std::size_t kCodedDtypes = 5;  ///< dtype ids 1..5, in order
inline constexpr std::size_t kCodedCodecs = 2;  ///< codec ids 1..2, in order

/// Where one tile's rest lies; entries that the dtype does not have are null.
template <class Byte>
struct rest_tile {
  std::array<Byte*, 3> bytes = {};
  std::array<Byte*, 2> fields = {};
};
using rest_out = rest_tile<std::uint8_t>;
using rest_in = rest_tile<const std::uint8_t>;

/// Values in a block of a packed matrix.
inline constexpr std::uint32_t kBlockSymbols = 2048;

/// Returned by an encoder when the coded tail would not be smaller than the raw one.
inline constexpr std::uint32_t kTileNotCoded = 0xffffffff;

struct coded_tile {
  std::uint32_t words = kTileNotCoded;  ///< tail words, or kTileNotCoded
  bool escapes = false;
};

/// What encoding a run of tiles tells and decoding one needs, tile by tile; bit t of the flags belongs to
/// tile t.
struct tile_run {
  std::uint32_t n_tiles = 0;  ///< at most kChunkTiles
  std::uint8_t escapes = 0;
  std::uint8_t raw = 0;
  std::array<std::uint8_t, kChunkTiles> words = {};
  std::array<nh_sums, kChunkTiles> sums = {};
};

/// All functions work on one full tile of 1,024 values, take any alignment and touch exactly the bytes named
/// here. `stream` asks for stores that bypass the caches; `finish` orders them before the results are
/// published.
struct tile_ops {
  const char* name;

  /// values (1024 W bytes) -> rest planes, symbols in value order, digest sums.
  using split_fn = void (*)(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols,
                            nh_sums& sums, bool stream) noexcept;
  /// rest planes and symbols in value order -> values, digest sums of the values.
  using join_fn = void (*)(const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values,
                           nh_sums& sums, bool stream) noexcept;
  /// symbols -> code plane and tail (may write up to kTailScratchBytes at `tail`; bytes after the tail's
  /// words are garbage).
  using encode_fn = coded_tile (*)(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                                   std::uint8_t* tail) noexcept;
  /// Code plane and tail -> symbols; false if the tail contradicts the code plane, its length or `escapes`.
  /// May read kTailReadSlack bytes past the tail's words.
  using decode_fn = bool (*)(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                             std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept;
  /// Sums of one tile of `1024 W` bytes.
  using nh_fn = void (*)(const std::uint8_t* tile, std::uint32_t value_bytes, nh_sums& sums) noexcept;
  /// Adds the symbol counts of `n_values` values.
  using histogram_fn = void (*)(const std::uint8_t* values, std::uint64_t n_values,
                                std::uint64_t* counts) noexcept;

  /// A run of full tiles that follow each other in all planes, tails and values; each may be raw. They do
  /// what the single steps do, and may overlap the steps of neighbouring tiles. Optional: null where a
  /// backend has no such thing. Returns the words of all tails.
  using encode_run_fn = std::uint32_t (*)(const coding& c, const std::uint8_t* values, const rest_out& rest,
                                          std::uint8_t* code_plane, std::uint8_t* tails, tile_run& run,
                                          bool stream) noexcept;
  /// False if a tail is malformed. May read kTailReadSlack bytes past the last tail.
  using decode_run_fn = bool (*)(const coding& c, const rest_in& rest, const std::uint8_t* code_plane,
                                 const std::uint8_t* tails, std::uint8_t* values, tile_run& run,
                                 bool stream) noexcept;
  /// Counts the symbols of a block into 256 counters, which are zero. Optional, as the next one.
  using count_block_fn = void (*)(const std::uint8_t* symbols, std::uint16_t* counts) noexcept;
  /// codes[i] = table[symbols[i]] for the symbols of a block; `table` has 256 bytes.
  using map_block_fn = void (*)(const std::uint8_t* symbols, const std::uint8_t* table,
                                std::uint8_t* codes) noexcept;

  template <class Fn>
  using per_codec_and_dtype = std::array<std::array<Fn, kCodedDtypes>, kCodedCodecs>;

  std::array<split_fn, kCodedDtypes> split;
  std::array<join_fn, kCodedDtypes> join;
  std::array<encode_fn, kCodedCodecs> encode;
  std::array<decode_fn, kCodedCodecs> decode;
  std::array<histogram_fn, kCodedDtypes> count;
  nh_fn nh;
  void (*finish)() noexcept;
  per_codec_and_dtype<encode_run_fn> encode_run = {};
  per_codec_and_dtype<decode_run_fn> decode_run = {};
  count_block_fn count_block = nullptr;
  map_block_fn map_block = nullptr;
};

/// Raw tiles (spec/codecs.md section 4.2), the same for every backend: too rare to be worth instructions of
/// their own.
void encode_raw_tile(const level_plan& plan, const std::uint8_t* symbols, std::uint8_t* code_plane,
                     std::uint8_t* tail) noexcept;
void decode_raw_tile(const level_plan& plan, const std::uint8_t* code_plane, const std::uint8_t* tail,
                     std::uint8_t* symbols) noexcept;

}  // namespace tersor::codec_detail
