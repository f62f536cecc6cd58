// The tile primitives in plain C++: the reference backend, and what the SIMD backends use where they have
// nothing faster. Everything has internal linkage, so that a file compiled for a newer instruction set keeps
// its copies to itself.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "codec/dtype_traits.hpp"
#include "codec/lanes.hpp"
#include "codec/tile_ops.hpp"
#include "core/bytes.hpp"

namespace {
namespace portable {

using namespace tersor::codec_detail;
using tersor::core::load_le;
using tersor::core::store_le;

[[maybe_unused]] void nh(const std::uint8_t* tile, std::uint32_t value_bytes, nh_sums& sums) noexcept {
  const std::uint32_t columns = 32 * value_bytes;
  for (unsigned n = 0; n < kNhSums; ++n) {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    for (std::uint32_t c = 0; c < columns; ++c) {
      std::uint64_t column = 0;
      for (std::uint32_t s = 0; s < kRows; ++s) {
        const auto word = load_le<std::uint64_t>(tile + (s * columns + c) * 8);
        const std::uint32_t row = kNhKeys.rows[n][s];
        const std::uint32_t a = static_cast<std::uint32_t>(word) + kNhKeys.columns[n][2 * c] + row;
        const std::uint32_t b = static_cast<std::uint32_t>(word >> 32) + kNhKeys.columns[n][2 * c + 1] + row;
        column += static_cast<std::uint64_t>(a) * b;
      }
      low += static_cast<std::uint32_t>(column);
      high += static_cast<std::uint32_t>(column >> 32);
    }
    sums.t[n] = (static_cast<std::uint64_t>(high) << 32) | low;
  }
}

/// First value of the eight that are group `g` in lane order; their fields are whole bytes of a field plane.
constexpr std::uint32_t group_start(std::uint32_t g) noexcept {
  return value_order(8 * g);
}

inline std::uint32_t load_group(const std::uint8_t* plane, std::uint32_t width, std::uint32_t g) noexcept {
  std::uint32_t fields = 0;
  for (std::uint32_t b = 0; b < width; ++b) {
    fields |= static_cast<std::uint32_t>(plane[g * width + b]) << (8 * b);
  }
  return fields;
}

inline void store_group(std::uint8_t* plane, std::uint32_t width, std::uint32_t g,
                        std::uint32_t fields) noexcept {
  for (std::uint32_t b = 0; b < width; ++b) {
    plane[g * width + b] = static_cast<std::uint8_t>(fields >> (8 * b));
  }
}

/// Split and join of any dtype; `Nh` is the backend's digest.
template <class Split, auto Nh = nh>
void split(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
           bool /*stream*/) noexcept {
  using bits = typename Split::bits;
  const rest_out out = rest;
  for (std::uint32_t g = 0; g < kTileValues / 8; ++g) {
    std::uint32_t fields0 = 0;
    std::uint32_t fields1 = 0;
    for (std::uint32_t k = 0; k < 8; ++k) {
      const std::uint32_t i = group_start(g) + k;
      const std::uint32_t value = load_le<bits>(values + i * sizeof(bits));
      symbols[i] = Split::symbol(value);
      const std::uint32_t r = Split::rest(value);
      for (unsigned b = 0; b < Split::kBytePlanes; ++b)
        out.bytes[b][i] = static_cast<std::uint8_t>(r >> (8 * b));
      if constexpr (Split::kField0 != 0) {
        const std::uint32_t high = r >> (8 * Split::kBytePlanes);
        fields0 |= (high & ((1u << Split::kField0) - 1)) << (Split::kField0 * k);
        fields1 |= (high >> Split::kField0) << (Split::kField1 * k);
      }
    }
    if constexpr (Split::kField0 != 0) store_group(out.fields[0], Split::kField0, g, fields0);
    if constexpr (Split::kField1 != 0) store_group(out.fields[1], Split::kField1, g, fields1);
  }
  Nh(values, Split::kValueBytes, sums);
}

template <class Split, auto Nh = nh>
void join(const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values, nh_sums& sums,
          bool /*stream*/) noexcept {
  using bits = typename Split::bits;
  const rest_in in = rest;
  for (std::uint32_t g = 0; g < kTileValues / 8; ++g) {
    std::uint32_t fields0 = 0;
    std::uint32_t fields1 = 0;
    if constexpr (Split::kField0 != 0) fields0 = load_group(in.fields[0], Split::kField0, g);
    if constexpr (Split::kField1 != 0) fields1 = load_group(in.fields[1], Split::kField1, g);
    for (std::uint32_t k = 0; k < 8; ++k) {
      const std::uint32_t i = group_start(g) + k;
      std::uint32_t r = 0;
      for (unsigned b = 0; b < Split::kBytePlanes; ++b)
        r |= static_cast<std::uint32_t>(in.bytes[b][i]) << (8 * b);
      if constexpr (Split::kField0 != 0) {
        std::uint32_t high = (fields0 >> (Split::kField0 * k)) & ((1u << Split::kField0) - 1);
        high |= ((fields1 >> (Split::kField1 * k)) & ((1u << Split::kField1) - 1)) << Split::kField0;
        r |= high << (8 * Split::kBytePlanes);
      }
      store_le<bits>(values + i * sizeof(bits), static_cast<bits>(Split::join(symbols[i], r)));
    }
  }
  Nh(values, Split::kValueBytes, sums);
}

template <class Split>
void count(const std::uint8_t* values, std::uint64_t n_values, std::uint64_t* counts) noexcept {
  using bits = typename Split::bits;
  // Four tables hide the latency of repeated increments of one counter.
  std::array<std::array<std::uint64_t, 256>, 4> tables = {};
  for (std::uint64_t i = 0; i < n_values; ++i) {
    ++tables[i & 3][Split::symbol(load_le<bits>(values + i * sizeof(bits)))];
  }
  for (unsigned s = 0; s < 256; ++s) counts[s] += tables[0][s] + tables[1][s] + tables[2][s] + tables[3][s];
}

/// Appends fields of up to 32 bits to a bit string, least significant bit first; may write 8 bytes past its
/// end.
class bit_writer {
 public:
  explicit bit_writer(std::uint8_t* dst) noexcept : begin_(dst), dst_(dst) {}
  void put(std::uint32_t field, std::uint32_t width) noexcept {
    bits_ |= static_cast<std::uint64_t>(field) << count_;
    store_le<std::uint64_t>(dst_, bits_);
    count_ += width;
    dst_ += count_ >> 3;
    bits_ >>= count_ & ~7u;
    count_ &= 7;
  }
  [[nodiscard]] std::uint32_t n_bits() const noexcept {
    return static_cast<std::uint32_t>(dst_ - begin_) * 8 + count_;
  }
  void align(std::uint32_t unit) noexcept { put(0, (unit - n_bits() % unit) % unit); }

 private:
  std::uint8_t* begin_;
  std::uint8_t* dst_;
  std::uint64_t bits_ = 0;
  std::uint32_t count_ = 0;
};

/// Takes fields from a bit string of known length; reads up to 4 bytes past its end.
class bit_reader {
 public:
  bit_reader(const std::uint8_t* src, std::uint32_t n_words) noexcept : src_(src), n_bits_(n_words * 32) {}
  [[nodiscard]] bool has(std::uint32_t n_bits) const noexcept { return n_bits <= n_bits_ - at_; }
  /// `width` up to 24; `has(width)` must hold.
  [[nodiscard]] std::uint32_t take(std::uint32_t width) noexcept {
    const std::uint32_t field =
        (load_le<std::uint32_t>(src_ + (at_ >> 3)) >> (at_ & 7)) & ((1u << width) - 1);
    at_ += width;
    return field;
  }
  [[nodiscard]] std::uint32_t at() const noexcept { return at_; }

 private:
  const std::uint8_t* src_;
  std::uint32_t n_bits_;
  std::uint32_t at_ = 0;
};

/// Reads the escapes' symbols, the last part of a tail of `n_bits` bits whose streams end at bit `at`, into
/// `symbols[values[i]]`; false unless they fill the tail up to zero padding of less than a word.
[[maybe_unused]] bool take_escapes(const coding& c, const std::uint8_t* tail, std::uint32_t at,
                                   std::uint32_t n_bits, const std::uint16_t* values, std::uint32_t n_escapes,
                                   std::uint8_t* symbols) noexcept {
  if ((at & 7) != 0 && (tail[at >> 3] >> (at & 7)) != 0) return false;
  std::uint32_t byte = (at + 7) / 8;
  const std::uint32_t end = n_bits / 8;
  if (end - byte < n_escapes || end - byte - n_escapes >= 4) return false;
  for (std::uint32_t i = 0; i < n_escapes; ++i) {
    const std::uint8_t symbol = tail[byte++];
    if ((symbol >> c.plan.symbol_bits) != 0) return false;
    symbols[values[i]] = symbol;
  }
  while (byte < end) {
    if (tail[byte++] != 0) return false;
  }
  return true;
}

/// Calls `body(value)` for each code 15 of a code plane of `top16`, in lane order.
template <class Body>
inline void for_each_escape(const std::uint8_t* code_plane, Body&& body) noexcept {
  for (std::uint32_t word = 0; word < kTileValues / 16; ++word) {
    const auto codes = load_le<std::uint64_t>(code_plane + std::size_t{8} * word);
    const std::uint64_t pairs = codes & (codes >> 1);
    for (std::uint64_t left = pairs & (pairs >> 2) & 0x1111111111111111u; left != 0; left &= left - 1) {
      body(value_order(16 * word + static_cast<std::uint32_t>(std::countr_zero(left)) / 4));
    }
  }
}

// The loops below append without a branch and then count: which values continue is not predictable.

/// Calls `body` with a level's width as a constant; no codec has others.
template <class Body>
inline std::uint32_t with_width(std::uint32_t width, Body&& body) noexcept {
  switch (width) {
    case 2:
      return body(std::integral_constant<std::uint32_t, 2>{});
    case 3:
      return body(std::integral_constant<std::uint32_t, 3>{});
    default:
      return body(std::integral_constant<std::uint32_t, 4>{});
  }
}

/// min(past, all ones), in a form that compilers do not turn into a branch.
template <std::uint32_t Width>
constexpr std::uint32_t code_of(std::uint32_t past, std::uint32_t goes_on) noexcept {
  return (past | (0 - goes_on)) & ((1u << Width) - 1);
}

/// Writes the code plane; leaves the codebook places of the values that continue after level 1, in lane
/// order, in `open` and returns their number.
template <std::uint32_t Width>
inline std::uint32_t encode_level1(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                                   std::uint8_t* open) noexcept {
  constexpr std::uint32_t kGoOn = (1u << Width) - 1;
  std::uint32_t n = 0;
  for (std::uint32_t g = 0; g < kTileValues / 8; ++g) {
    const std::uint8_t* group = symbols + group_start(g);
    std::uint32_t codes = 0;
    for (std::uint32_t k = 0; k < 8; ++k) {
      const std::uint8_t place = c.place[group[k]];
      const std::uint32_t goes_on = place >= kGoOn ? 1 : 0;
      codes |= code_of<Width>(place, goes_on) << (Width * k);
      open[n] = place;
      n += goes_on;
    }
    store_group(code_plane, Width, g, codes);
  }
  return n;
}

/// Appends the codes of a level after the first; leaves the places that continue in `open` and returns their
/// number.
template <std::uint32_t Width>
inline std::uint32_t encode_level(bit_writer& bits, std::uint32_t first_entry, std::uint8_t* open,
                                  std::uint32_t n_open) noexcept {
  constexpr std::uint32_t kGoOn = (1u << Width) - 1;
  std::uint32_t n_next = 0;
  for (std::uint32_t i = 0; i < n_open; i += 8) {
    const std::uint32_t n = std::min(n_open - i, 8u);
    std::uint32_t codes = 0;
    for (std::uint32_t k = 0; k < n; ++k) {
      const std::uint8_t place = open[i + k];
      const std::uint32_t past = place - first_entry;
      const std::uint32_t goes_on = past >= kGoOn ? 1 : 0;
      codes |= code_of<Width>(past, goes_on) << (Width * k);
      open[n_next] = place;
      n_next += goes_on;
    }
    bits.put(codes, Width * n);
  }
  return n_next;
}

/// Appends the `n` escapes of a tile: a second look at its symbols, which few tiles need.
inline void put_escapes(bit_writer& bits, const coding& c, const std::uint8_t* symbols,
                        std::uint32_t n) noexcept {
  for (std::uint32_t j = 0; n != 0; ++j) {
    const std::uint8_t symbol = symbols[value_order(j)];
    if (c.place[symbol] != kNoPlace) continue;
    bits.put(symbol, 8);
    --n;
  }
}

[[maybe_unused]] coded_tile encode(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane,
                                   std::uint8_t* tail) noexcept {
  std::array<std::uint8_t, kTileValues> open;
  std::uint32_t n_open = with_width(c.plan.widths[0], [&](auto width) {
    return encode_level1<width()>(c, symbols, code_plane, open.data());
  });
  bit_writer bits(tail);
  std::uint32_t first_entry = (1u << c.plan.widths[0]) - 1;
  for (std::uint32_t level = 1; level < c.plan.n_levels; ++level) {
    const std::uint32_t width = c.plan.widths[level];
    n_open =
        with_width(width, [&](auto w) { return encode_level<w()>(bits, first_entry, open.data(), n_open); });
    first_entry += (1u << width) - 1;
  }
  // What continues after the last level are the escapes.
  bits.align(8);
  put_escapes(bits, c, symbols, n_open);
  bits.align(32);
  const std::uint32_t words = bits.n_bits() / 32;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = n_open != 0};
}

/// The codebook and one entry more, which a code that continues reads before its symbol is known.
using entry_symbols = std::array<std::uint8_t, 17>;

/// Fills in the symbols that level 1 knows; notes the other values, in lane order, in `open` and returns
/// their number.
template <std::uint32_t Width>
inline std::uint32_t decode_level1(const entry_symbols& entries, const std::uint8_t* code_plane,
                                   std::uint8_t* symbols, std::uint16_t* open) noexcept {
  constexpr std::uint32_t kGoOn = (1u << Width) - 1;
  std::uint32_t n_open = 0;
  for (std::uint32_t g = 0; g < kTileValues / 8; ++g) {
    const std::uint32_t start = group_start(g);
    const std::uint32_t codes = load_group(code_plane, Width, g);
    for (std::uint32_t k = 0; k < 8; ++k) {
      const std::uint32_t code = (codes >> (Width * k)) & kGoOn;
      symbols[start + k] = entries[code];
      open[n_open] = static_cast<std::uint16_t>(start + k);
      n_open += code == kGoOn ? 1 : 0;
    }
  }
  return n_open;
}

[[maybe_unused]] bool decode(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail,
                             std::uint32_t words, bool escapes, std::uint8_t* symbols) noexcept {
  entry_symbols entries = {};
  memcpy(entries.data(), c.book.symbols.data(), c.book.symbols.size());
  std::array<std::uint16_t, kTileValues> open;
  std::uint32_t n_open = with_width(c.plan.widths[0], [&](auto width) {
    return decode_level1<width()>(entries, code_plane, symbols, open.data());
  });
  bit_reader bits(tail, words);
  std::uint32_t first_entry = (1u << c.plan.widths[0]) - 1;
  for (std::uint32_t level = 1; level < c.plan.n_levels; ++level) {
    const std::uint32_t width = c.plan.widths[level];
    const std::uint32_t go_on = (1u << width) - 1;
    if (!bits.has(width * n_open)) return false;
    std::uint32_t n_next = 0;
    for (std::uint32_t i = 0; i < n_open; ++i) {
      const std::uint16_t value = open[i];
      const std::uint32_t code = bits.take(width);
      symbols[value] = entries[first_entry + code];
      open[n_next] = value;
      n_next += code == go_on ? 1 : 0;
    }
    n_open = n_next;
    first_entry += go_on;
  }
  return (n_open != 0) == escapes &&
         take_escapes(c, tail, bits.at(), words * 32, open.data(), n_open, symbols);
}

[[maybe_unused]] void finish() noexcept {}

}  // namespace portable
}  // namespace
