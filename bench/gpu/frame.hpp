// Host side of the layout trial: frame geometry, the digest and a plain reference encoder for whole BF16
// tiles. It follows spec/frame.md and spec/codecs.md word for word and shares no code with the kernels but
// `mix` and `key`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trial {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

enum class codec_id : u8 { top16 = 1, rank = 2 };

constexpr u32 kTileValues = 1024;
constexpr u32 kChunkTiles = 8;
constexpr u32 kRecordBytes = 24;
constexpr u32 kHeaderBytes = 128;

#ifdef __CUDACC__
#define TERSOR_TRIAL_HD __host__ __device__
#else
#define TERSOR_TRIAL_HD
#endif

TERSOR_TRIAL_HD constexpr u64 mix(u64 z) {
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9ULL;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

TERSOR_TRIAL_HD constexpr u32 key(u32 n, u32 i) {
  return static_cast<u32>(mix(((static_cast<u64>(n) << 32) + i + 1) * 0x9E3779B97F4A7C15ULL) >> 32);
}

/// Where the sections of a BF16 frame of whole tiles lie; `tails` is the last section before padding.
struct geometry {
  codec_id codec = codec_id::rank;
  u64 tiles = 0, chunks = 0;
  u64 index = 0, rest = 0, code = 0, tails = 0;
  u32 code_bytes = 0;     ///< code plane bytes a tile
  u32 raw_words = 0;      ///< tail words of a raw tile
  u64 tail_capacity = 0;  ///< words, every tile raw

  [[nodiscard]] u64 frame_bytes(u64 tail_words) const { return (tails + 4 * tail_words + 127) & ~u64{127}; }
};

geometry make_geometry(codec_id codec, u64 values);

/// Hash of a few words: one mix for domain and number, one a word.
TERSOR_TRIAL_HD constexpr u64 chain(u32 domain, u64 number, const u64* words, u32 count) {
  u64 h = mix(static_cast<u64>(domain) << 56 | number);
  for (u32 i = 0; i < count; ++i) h = mix(words[i] ^ h);
  return h;
}

/// Symbols by falling frequency, ties by smaller symbol; top16 leaves entry 15 zero.
void make_codebook(codec_id codec, const u64 counts[256], u8 codebook[16]);

/// The header but tail words and digests, which stay zero.
void start_header(const geometry& g, const u8 codebook[16], u8* frame);
/// The rest of it, from the frame's records.
void finish_header(const geometry& g, u64 tail_words, u8* frame);

/// The canonical frame of `values` (a multiple of 1024 of them).
std::vector<u8> reference_encode(codec_id codec, const u8 codebook[16], const u16* values, std::size_t count);

/// Puts the tails of a frame made in any order into chunk order and writes the header with its digests.
std::vector<u8> canonical_order(const geometry& g, const u8 codebook[16], const std::vector<u8>& frame);

}  // namespace trial
