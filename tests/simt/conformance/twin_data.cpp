#include "twin_data.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "codec/frame_codec.hpp"
#include "simt/random.hpp"

namespace twin {
namespace {

struct fields {
  std::uint32_t value_bytes, symbol_bits, mantissa_bits;
};
fields fields_of(tersor::dtype type) {
  switch (type) {
    case tersor::dtype::bf16:
      return {2, 8, 7};
    case tersor::dtype::f16:
      return {2, 5, 10};
    case tersor::dtype::f8_e4m3:
      return {1, 4, 3};
    default:
      return {1, 5, 2};
  }
}

std::uint32_t with_exponent(const fields& f, std::uint32_t symbol, std::uint64_t bits) {
  const std::uint32_t mask = (1u << f.symbol_bits) - 1;
  const auto rest = static_cast<std::uint32_t>(bits) & ~(mask << f.mantissa_bits);
  return rest | (symbol & mask) << f.mantissa_bits;
}

/// Exponents that fall off by half, below a top one.
std::uint32_t normal_value(const fields& f, simt::random& r, std::uint32_t top) {
  const auto below = static_cast<std::uint32_t>(std::countr_zero(r.next() | 1u << 20));
  return with_exponent(f, top > below ? top - below : 0, r.next());
}

std::uint32_t value_of(const fields& f, simt::random& r, kind k, std::uint64_t v, std::uint64_t seed) {
  const std::uint32_t top = (1u << (f.symbol_bits - 1)) - 2;
  const std::uint32_t all_ones = (1u << f.symbol_bits) - 1;
  switch (k) {
    case kind::normal:
      return normal_value(f, r, top);
    case kind::row_scaled:
      return normal_value(f, r, top + static_cast<std::uint32_t>(v / 128 * 7 % 5));
    case kind::heavy_tails:
      return r.one_in(8) ? static_cast<std::uint32_t>(r.next()) : normal_value(f, r, top);
    case kind::uniform_exponents:
      return static_cast<std::uint32_t>(r.next());
    case kind::counting:
      return static_cast<std::uint32_t>(v + seed - 1);
    case kind::zeros_and_nans: {
      const std::uint64_t run = v / 37 % 5;
      if (run == 0) return static_cast<std::uint32_t>(r.next());
      return run == 1 ? with_exponent(f, all_ones, r.next()) : run == 2 ? with_exponent(f, all_ones, 0) : 0;
    }
    case kind::constant:
      return with_exponent(f, top, seed * 0x5555);
    default:
      break;
  }
  constexpr std::array kTiles = {kind::normal, kind::uniform_exponents, kind::constant, kind::heavy_tails,
                                 kind::zeros_and_nans};
  return value_of(f, r, kTiles[(v / 1024 + seed) % kTiles.size()], v, seed);
}

}  // namespace

const char* to_string(kind k) {
  constexpr std::array kNames = {"normal",   "row_scaled",     "heavy_tails", "uniform_exponents",
                                 "counting", "zeros_and_nans", "constant",    "mixed"};
  return kNames[static_cast<std::size_t>(k)];
}

bytes make_data(tersor::dtype type, std::uint64_t n_values, kind k, std::uint64_t seed) {
  const fields f = fields_of(type);
  simt::random r(seed * 977 + static_cast<std::uint64_t>(k) * 31 + static_cast<std::uint64_t>(type));
  bytes out(n_values * f.value_bytes);
  for (std::uint64_t v = 0; v < n_values; ++v) {
    const std::uint32_t value = value_of(f, r, k, v, seed);
    std::memcpy(out.data() + v * f.value_bytes, &value, f.value_bytes);
  }
  return out;
}

const tersor::context& cpu() {
  static const tersor::context ctx = [] {
    auto made = tersor::context::create(1, "scalar");
    if (!made) throw std::runtime_error(made.error().describe());
    return std::move(*made);
  }();
  return ctx;
}

tersor::codebook book_of(tersor::dtype type, byte_view data) {
  return tersor::make_codebook(type, tersor::count_symbols(type, data).value()).value();
}

tersor::codebook stored_book(tersor::codec c, tersor::codebook book) {
  if (c == tersor::codec::top16) book.symbols[15] = 0;
  return book;
}

bytes cpu_frame(tersor::codec c, tersor::dtype type, std::span<const std::uint64_t> shape, byte_view data,
                const tersor::codebook& book) {
  bytes frame(tersor::encode_bound(c, type, data.size() / tersor::value_bytes(type)));
  const tersor::encode_options options{.codec = c, .book = book, .raw_fallback = false};
  frame.resize(tersor::encode_into(cpu(), {type, shape, data}, frame, options).value());
  return frame;
}

std::string label(tersor::codec c, tersor::dtype type, std::uint64_t n_values, kind k) {
  return std::string(tersor::to_string(c)) + " " + std::string(tersor::to_string(type)) + " " + to_string(k) +
         " " + std::to_string(n_values);
}

bytes read_vector(const std::string& name) {
  std::ifstream file(std::filesystem::path(TERSOR_GOLDEN_VECTORS) / name, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + name);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  bytes out(chars.size());
  std::ranges::transform(chars, out.begin(), [](char c) { return static_cast<std::byte>(c); });
  return out;
}

std::string difference(byte_view got, byte_view want) {
  if (got.size() != want.size()) {
    return "has " + std::to_string(got.size()) + " bytes, not " + std::to_string(want.size());
  }
  const auto at = std::ranges::mismatch(got, want).in1 - got.begin();
  if (at == static_cast<std::ptrdiff_t>(got.size())) return "";
  const auto i = static_cast<std::size_t>(at);
  return "byte " + std::to_string(i) + " of " + std::to_string(got.size()) + " is " +
         std::to_string(std::to_integer<int>(got[i])) + ", not " +
         std::to_string(std::to_integer<int>(want[i]));
}

}  // namespace twin
