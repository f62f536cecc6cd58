// What a frame's header says, judged field by field in the order of spec/frame.md "Reading": steps 1 to 5 for
// code that cannot build messages (a GPU). src/codec/frame.cpp is the version with words; tests compare the
// two.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace tersor::codec_detail {

struct header_verdict {
  std::int32_t code = 0;          ///< errc as a number
  std::uint64_t frame_bytes = 0;  ///< only if the code is 0
  std::uint64_t index_bytes = 0;  ///< bytes of the index section, padding apart
  std::uint64_t tails_end = 0;    ///< end of the tails or of the payload
};

namespace verdict_detail {

inline constexpr std::int32_t kTruncated = 3, kBadMagic = 4, kUnsupportedVersion = 5, kMalformed = 6,
                              kDigestMismatch = 7, kUnsupported = 8, kSizeOverflow = 9;
inline constexpr std::uint64_t kMagic = 0x0a524f5352455489u;
inline constexpr std::uint64_t kMaxSection = std::uint64_t{1} << 60;

/// Value bytes and symbol bits of a dtype id; symbol bits 0 = no exponent to code.
struct dtype_facts {
  std::uint32_t value_bytes, symbol_bits, byte_planes, field_0, field_1;
};
[[nodiscard]] TERSOR_HD constexpr dtype_facts facts_of(std::uint32_t dtype) noexcept {
  switch (dtype) {
    case 1:
      return {2, 8, 1, 0, 0};
    case 2:
      return {2, 5, 1, 2, 1};
    case 3:
      return {4, 8, 3, 0, 0};
    case 4:
      return {1, 4, 0, 4, 0};
    case 5:
      return {1, 5, 0, 2, 1};
    case 9:
    case 10:
      return {2, 0, 0, 0, 0};
    case 11:
    case 12:
      return {4, 0, 0, 0, 0};
    case 13:
    case 14:
    case 15:
      return {8, 0, 0, 0, 0};
    default:
      return {1, 0, 0, 0, 0};
  }
}

/// False if a * b leaves 64 bits. By halves: a GPU divides slowly.
[[nodiscard]] TERSOR_HD constexpr bool multiply(std::uint64_t a, std::uint64_t b,
                                                std::uint64_t& out) noexcept {
  const std::uint64_t a_low = a & 0xffffffffu, a_high = a >> 32, b_low = b & 0xffffffffu, b_high = b >> 32;
  const std::uint64_t cross = a_high * b_low + (a_low * b_low >> 32);
  const std::uint64_t other = a_low * b_high + (cross & 0xffffffffu);
  out = a * b;
  return a_high * b_high + (cross >> 32) + (other >> 32) == 0;
}

/// Appends a section; false if it is larger than any section may be.
[[nodiscard]] TERSOR_HD constexpr bool add_section(std::uint64_t count, std::uint64_t unit,
                                                   std::uint64_t& at) noexcept {
  std::uint64_t bytes = 0;
  if (!multiply(count, unit, bytes) || bytes > kMaxSection) return false;
  at = (at + bytes + 127) & ~std::uint64_t{127};
  return true;
}

[[nodiscard]] TERSOR_HD constexpr bool valid_book(const std::uint64_t* book, std::uint32_t n_entries,
                                                  std::uint32_t symbol_bits) noexcept {
  std::uint64_t seen[4] = {};
  for (std::uint32_t i = 0; i < 16; ++i) {
    const auto symbol = static_cast<std::uint32_t>(book[i / 8] >> (8 * (i % 8)) & 0xff);
    if (i >= n_entries) {
      if (symbol != 0) return false;
      continue;
    }
    const std::uint64_t bit = std::uint64_t{1} << (symbol & 63);
    if (symbol >> symbol_bits != 0 || (seen[symbol >> 6] & bit) != 0) return false;
    seen[symbol >> 6] |= bit;
  }
  return true;
}

[[nodiscard]] TERSOR_HD constexpr std::int32_t judge_shape(const std::uint64_t* w,
                                                           std::uint32_t dims) noexcept {
  if (dims > 8) return kMalformed;
  std::uint64_t product = 1;
  for (std::uint32_t i = 0; i < 8; ++i) {
    if (i >= dims) {
      if (w[8 + i] != 0) return kMalformed;
    } else if (!multiply(product, w[8 + i], product)) {
      return kSizeOverflow;
    }
  }
  return product == w[2] ? 0 : kMalformed;
}

[[nodiscard]] TERSOR_HD constexpr std::int32_t judge_codec(const std::uint64_t* w, std::uint32_t codec,
                                                           std::uint32_t dtype, bool book_is_valid) noexcept {
  if (codec > 2 || dtype > 15) return kUnsupported;
  const auto widths = static_cast<std::uint32_t>(w[1] >> 48);
  if (codec == 0) return widths != 0 || w[6] != 0 || w[7] != 0 || w[3] != 0 ? kMalformed : 0;
  const std::uint32_t bits = facts_of(dtype).symbol_bits;
  if (bits == 0) return kMalformed;
  if (widths != (codec == 1 ? 0x0004u : 0x3222u)) return kUnsupported;
  return book_is_valid ? 0 : kMalformed;
}

}  // namespace verdict_detail

/// Entries and symbol bits of a coded header's codebook; 0 entries where the header has none.
struct book_facts {
  std::uint32_t n_entries, symbol_bits;
};
[[nodiscard]] TERSOR_HD constexpr book_facts book_of(std::uint64_t word_1) noexcept {
  const auto codec = static_cast<std::uint32_t>(word_1 >> 16 & 0xff);
  return {codec == 1   ? 15u
          : codec == 2 ? 16u
                       : 0u,
          verdict_detail::facts_of(static_cast<std::uint32_t>(word_1 >> 24 & 0xff)).symbol_bits};
}
/// Whether the codebook of a coded header (words 6 and 7) is valid.
[[nodiscard]] TERSOR_HD constexpr bool has_valid_book(const std::uint64_t* w) noexcept {
  const book_facts facts = book_of(w[1]);
  return verdict_detail::valid_book(w + 6, facts.n_entries, facts.symbol_bits);
}

/// `w`: the header's 16 words; `digest`: what its digest should be; `n_bytes`: bytes at hand, at least 128;
/// `book_is_valid`: has_valid_book, which a GPU finds out with a warp.
[[nodiscard]] TERSOR_HD constexpr header_verdict judge_header(const std::uint64_t* w, std::uint64_t digest,
                                                              std::uint64_t n_bytes,
                                                              bool book_is_valid) noexcept {
  using namespace verdict_detail;
  if (w[0] != kMagic) return {kBadMagic};
  if (w[5] != digest) return {kDigestMismatch};
  if ((w[1] & 0xffff) != 1) return {kUnsupportedVersion};
  const auto codec = static_cast<std::uint32_t>(w[1] >> 16 & 0xff),
             dtype = static_cast<std::uint32_t>(w[1] >> 24 & 0xff);
  if ((w[1] >> 40 & 0xff) != 0) return {kMalformed};
  if (const std::int32_t code = judge_shape(w, static_cast<std::uint32_t>(w[1] >> 32 & 0xff)); code != 0)
    return {code};
  if (const std::int32_t code = judge_codec(w, codec, dtype, book_is_valid); code != 0) return {code};
  const dtype_facts facts = facts_of(dtype);
  std::uint64_t decoded = 0;
  if (!multiply(w[2], facts.value_bytes, decoded)) return {kSizeOverflow};
  const std::uint64_t tiles = w[2] / 1024 + (w[2] % 1024 != 0 ? 1 : 0);
  const std::uint64_t chunks =
      codec == 0 ? decoded / 16384 + (decoded % 16384 != 0 ? 1 : 0) : tiles / 8 + (tiles % 8 != 0 ? 1 : 0);
  const std::uint32_t record = codec == 0 ? 8 : 24;
  std::uint64_t at = 128;
  bool fits = add_section(chunks, record, at);
  std::uint64_t last = at;
  if (codec == 0) {
    fits = fits && add_section(decoded, 1, at);
    last += decoded;
  } else {
    for (std::uint32_t i = 0; i < facts.byte_planes; ++i) fits = fits && add_section(tiles, 1024, at);
    fits = fits && add_section(tiles, 128 * facts.field_0, at) &&
           add_section(tiles, 128 * facts.field_1, at) && add_section(tiles, codec == 1 ? 512 : 256, at);
    last = at;
    fits = fits && add_section(w[3], 4, at);
    last += 4 * w[3];
  }
  if (!fits) return {kSizeOverflow};
  if (at > n_bytes) return {kTruncated};
  return {0, at, chunks * record, last};
}

}  // namespace tersor::codec_detail
