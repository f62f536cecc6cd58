// Tensors for the tests, made with all cores, and what the CPU says about them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "device.hpp"

namespace gpu_test {

inline constexpr std::array kTypes = {tersor::dtype::bf16, tersor::dtype::f16, tersor::dtype::f8_e4m3,
                                      tersor::dtype::f8_e5m2};
inline constexpr std::array kCodecs = {tersor::codec::rank, tersor::codec::top16};

/// SplitMix64 (Steele, Lea, Flood 2014).
class prng {
 public:
  explicit prng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return z ^ z >> 31;
  }
  /// A number below `n`, which is not 0.
  std::uint64_t below(std::uint64_t n) noexcept { return next() % n; }

 private:
  std::uint64_t state_;
};

struct type_fields {
  unsigned value_bytes, exponent_bits, mantissa_bits;
};
[[nodiscard]] type_fields fields_of(tersor::dtype type) noexcept;

enum class kind {
  normal,
  row_scaled,         ///< normal, rows of 512 at scales that differ
  lognormal_columns,  ///< normal, 640 columns at scales that differ a lot
  uniform_exponents,  ///< every exponent alike, few mantissas
  uniform_bits,
  zeros_and_nans,  ///< zeros of both signs with runs of NaN and infinity
  constant,
  counting,  ///< value v is the number v
};
inline constexpr std::array kKinds = {
    kind::normal,       kind::row_scaled,     kind::lognormal_columns, kind::uniform_exponents,
    kind::uniform_bits, kind::zeros_and_nans, kind::constant,          kind::counting};
[[nodiscard]] const char* to_string(kind k) noexcept;

[[nodiscard]] bytes make_data(tersor::dtype type, std::uint64_t n_values, kind k, std::uint64_t seed);

/// Tile t holds pattern (t + stride * v) at place v: with as many tiles as patterns, every pattern at every
/// place.
[[nodiscard]] bytes all_patterns(tersor::dtype type, std::uint64_t stride, std::uint64_t most_tiles);

/// One tile per number of values that leave level 1 (0 to 1024) and depth they go to, for `book`: every
/// length of a tail.
[[nodiscard]] bytes all_tail_lengths(tersor::codec c, tersor::dtype type, const tersor::codebook& book,
                                     std::uint64_t most_tiles);
/// The lengths of tails in a frame's index.
[[nodiscard]] std::vector<std::uint32_t> tail_lengths(byte_view frame);

// ---- The CPU's word ----

[[nodiscard]] tersor::codebook cpu_book(tersor::dtype type, byte_view data);
/// A coded frame; aborts the section if the CPU refuses.
[[nodiscard]] bytes cpu_frame(const tersor::context& ctx, tersor::codec c, tersor::dtype type,
                              std::span<const std::uint64_t> shape, byte_view data,
                              const tersor::codebook& book);

struct verdict {
  tersor::errc code = tersor::errc::ok;
  std::uint32_t chunk = tersor::cuda::kNoChunk;
  bool believed = false;  ///< the header's digest and version are right
  bool opened = false;    ///< header, index and padding are good
  std::uint64_t frame_bytes = 0, digest = 0, n_chunks = 0;
  bytes data;
};
/// Of the frame that begins `frame`; bytes after it are no fault, as for cuda::decode_async.
[[nodiscard]] verdict cpu_verdict(const tersor::context& ctx, byte_view frame);

[[nodiscard]] bytes read_file(const std::string& path);
[[nodiscard]] std::string label(tersor::codec c, tersor::dtype type, std::uint64_t n_values,
                                std::string_view more = {});

}  // namespace gpu_test
