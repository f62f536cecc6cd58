// The tile primitives in plain C++: the reference backend, and what the SIMD backends use where they have nothing faster.
// Everything has internal linkage, so that a file compiled for a newer instruction set keeps its copies to itself.
#pragma once

#include <array>
#include <cstring>

#include "codec/dtype_traits.hpp"
#include "codec/lanes.hpp"
#include "codec/tile_ops.hpp"
#include "core/bytes.hpp"

namespace {
namespace portable {

using namespace tersor::codec_detail;
using tersor::core::load_le;
using tersor::core::store_le;

void nh(const std::uint8_t* tile, std::uint32_t value_bytes, nh_sums& sums) noexcept {
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

template <class Split>
void split(const std::uint8_t* values, const rest_out& rest, std::uint8_t* symbols, nh_sums& sums,
           bool /*stream*/) noexcept {
  using bits = typename Split::bits;
  if constexpr (Split::kField0 != 0) memset(rest.fields[0], 0, Split::kField0 * (kTileValues / 8));
  if constexpr (Split::kField1 != 0) memset(rest.fields[1], 0, Split::kField1 * (kTileValues / 8));
  for (std::uint32_t i = 0; i < kTileValues; ++i) {
    const std::uint32_t value = load_le<bits>(values + i * sizeof(bits));
    symbols[i] = Split::symbol(value);
    const std::uint32_t r = Split::rest(value);
    for (unsigned b = 0; b < Split::kBytePlanes; ++b) rest.bytes[b][i] = static_cast<std::uint8_t>(r >> (8 * b));
    if constexpr (Split::kField0 != 0) {
      const std::uint32_t high = r >> (8 * Split::kBytePlanes);
      put_field(rest.fields[0], Split::kField0, lane_order(i), high & ((1u << Split::kField0) - 1));
      if constexpr (Split::kField1 != 0) put_field(rest.fields[1], Split::kField1, lane_order(i), high >> Split::kField0);
    }
  }
  nh(values, Split::kValueBytes, sums);
}

template <class Split>
void join(const rest_in& rest, const std::uint8_t* symbols, std::uint8_t* values, nh_sums& sums,
          bool /*stream*/) noexcept {
  using bits = typename Split::bits;
  for (std::uint32_t i = 0; i < kTileValues; ++i) {
    std::uint32_t r = 0;
    for (unsigned b = 0; b < Split::kBytePlanes; ++b) r |= static_cast<std::uint32_t>(rest.bytes[b][i]) << (8 * b);
    if constexpr (Split::kField0 != 0) {
      std::uint32_t high = get_field(rest.fields[0], Split::kField0, lane_order(i));
      if constexpr (Split::kField1 != 0) {
        high |= get_field(rest.fields[1], Split::kField1, lane_order(i)) << Split::kField0;
      }
      r |= high << (8 * Split::kBytePlanes);
    }
    store_le<bits>(values + i * sizeof(bits), static_cast<bits>(Split::join(symbols[i], r)));
  }
  nh(values, Split::kValueBytes, sums);
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

/// Appends fields to a bit string, least significant bit first.
class bit_writer {
 public:
  explicit bit_writer(std::uint8_t* dst) noexcept : dst_(dst) {}
  void put(std::uint32_t field, std::uint32_t width) noexcept {
    bits_ |= static_cast<std::uint64_t>(field) << count_;
    count_ += width;
    if (count_ >= 32) {
      store_le<std::uint32_t>(dst_, static_cast<std::uint32_t>(bits_));
      dst_ += 4;
      bits_ >>= 32;
      count_ -= 32;
    }
  }
  void align_to_byte() noexcept { put(0, (8 - count_ % 8) % 8); }
  /// Flushes, zero-padded to a whole word; returns the end.
  std::uint8_t* finish() noexcept {
    if (count_ != 0) put(0, 32 - count_);
    return dst_;
  }

 private:
  std::uint8_t* dst_;
  std::uint64_t bits_ = 0;
  std::uint32_t count_ = 0;
};

/// Takes fields from a bit string of known length; `overrun` tells whether more was asked for than there is.
class bit_reader {
 public:
  bit_reader(const std::uint8_t* src, std::uint32_t n_words) noexcept : src_(src), n_bits_(n_words * 32) {}
  [[nodiscard]] std::uint32_t take(std::uint32_t width) noexcept {
    if (n_bits_ - at_ < width) {
      overrun_ = true;
      return 0;
    }
    std::uint32_t field = 0;
    for (std::uint32_t i = 0; i < width; ++i, ++at_) field |= ((src_[at_ >> 3] >> (at_ & 7)) & 1u) << i;
    return field;
  }
  [[nodiscard]] bool align_is_zero() noexcept { return take((8 - at_ % 8) % 8) == 0; }
  /// True if everything was there, and less than a word of zeros is left.
  [[nodiscard]] bool ends_exactly() noexcept {
    if (overrun_ || n_bits_ - at_ >= 32) return false;
    return take(n_bits_ - at_) == 0;
  }

 private:
  const std::uint8_t* src_;
  std::uint32_t n_bits_;
  std::uint32_t at_ = 0;
  bool overrun_ = false;
};

coded_tile encode(const coding& c, const std::uint8_t* symbols, std::uint8_t* code_plane, std::uint8_t* tail) noexcept {
  // `places` is the stream of values still without a code; each level codes some and keeps the rest, in lane order.
  std::array<std::uint8_t, kTileValues> places;
  std::array<std::uint8_t, kTileValues> escapes;
  std::uint32_t n_escapes = 0;
  for (std::uint32_t j = 0; j < kTileValues; ++j) {
    const std::uint8_t symbol = symbols[value_order(j)];
    places[j] = c.place[symbol];
    if (places[j] == kNoPlace) escapes[n_escapes++] = symbol;
  }
  memset(code_plane, 0, c.plan.code_plane_bytes());
  bit_writer bits(tail);
  std::uint32_t n_left = kTileValues;
  std::uint32_t first_entry = 0;
  for (std::uint32_t level = 0; level < c.plan.n_levels; ++level) {
    const std::uint32_t width = c.plan.widths[level];
    const std::uint32_t go_on = (1u << width) - 1;
    std::uint32_t n_next = 0;
    for (std::uint32_t i = 0; i < n_left; ++i) {
      const bool coded = places[i] < first_entry + go_on;
      const std::uint32_t code = coded ? places[i] - first_entry : go_on;
      if (level == 0) {
        put_field(code_plane, width, i, code);
      } else {
        bits.put(code, width);
      }
      if (!coded) places[n_next++] = places[i];
    }
    n_left = n_next;
    first_entry += go_on;
  }
  bits.align_to_byte();
  for (std::uint32_t i = 0; i < n_escapes; ++i) bits.put(escapes[i], 8);
  const auto words = static_cast<std::uint32_t>(bits.finish() - tail) / 4;
  if (words >= c.plan.raw_words()) return {};
  return {.words = words, .escapes = n_escapes != 0};
}

bool decode(const coding& c, const std::uint8_t* code_plane, const std::uint8_t* tail, std::uint32_t words,
            bool escapes, std::uint8_t* symbols) noexcept {
  std::array<std::uint16_t, kTileValues> open;  // lane-order places of the values still without a symbol
  bit_reader bits(tail, words);
  std::uint32_t n_open = 0;
  const std::uint32_t w1 = c.plan.widths[0];
  for (std::uint32_t j = 0; j < kTileValues; ++j) {
    const std::uint32_t code = get_field(code_plane, w1, j);
    if (code == (1u << w1) - 1) {
      open[n_open++] = static_cast<std::uint16_t>(j);
    } else {
      symbols[value_order(j)] = c.book.symbols[code];
    }
  }
  std::uint32_t first_entry = (1u << w1) - 1;
  for (std::uint32_t level = 1; level < c.plan.n_levels; ++level) {
    const std::uint32_t width = c.plan.widths[level];
    const std::uint32_t go_on = (1u << width) - 1;
    std::uint32_t n_next = 0;
    for (std::uint32_t i = 0; i < n_open; ++i) {
      const std::uint32_t code = bits.take(width);
      if (code == go_on) {
        open[n_next++] = open[i];
      } else {
        symbols[value_order(open[i])] = c.book.symbols[first_entry + code];
      }
    }
    n_open = n_next;
    first_entry += go_on;
  }
  if (!bits.align_is_zero() || (n_open != 0) != escapes) return false;
  for (std::uint32_t i = 0; i < n_open; ++i) {
    const std::uint32_t symbol = bits.take(8);
    if ((symbol >> c.plan.symbol_bits) != 0) return false;
    symbols[value_order(open[i])] = static_cast<std::uint8_t>(symbol);
  }
  return bits.ends_exactly();
}

void finish() noexcept {}

}  // namespace portable
}  // namespace
