// The digest of spec/codecs.md section 5: two NH sums a tile, mixed with the tile's number.
#pragma once

#include <array>
#include <cstdint>

#include "core/bytes.hpp"
#include "core/host_device.hpp"

namespace tersor::codec_detail {

inline constexpr unsigned kNhSums = 2;
inline constexpr unsigned kRows = 4;
inline constexpr unsigned kRowKey = 256;  ///< key indices 256..259 belong to the rows
inline constexpr unsigned kMaxValueBytes = 4;

enum class digest_domain : std::uint8_t {
  data = 0,
  index = 1,
  frame_header = 2,
  container_header = 3,
  stored_tensor = 4,
  matrix_block = 5,
  matrix_header = 6,
  matrix_index = 7,
  message_header = 8,
  message_payload = 9,
  handshake = 10
};

[[nodiscard]] TERSOR_HD constexpr std::uint64_t mix64(std::uint64_t z) noexcept {
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9u;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

[[nodiscard]] TERSOR_HD constexpr std::uint32_t nh_key(std::uint64_t n, std::uint64_t i) noexcept {
  return static_cast<std::uint32_t>(mix64(((n << 32) + i + 1) * 0x9E3779B97F4A7C15u) >> 32);
}

/// `keys[n][i]` for the row-and-column words of a tile, in byte order of the tile: the key that is added to
/// 32-bit word `i` of row 0; rows add `rows[n][s]`.
struct nh_key_table {
  std::array<std::array<std::uint32_t, std::size_t{64} * kMaxValueBytes>, kNhSums> columns = {};
  std::array<std::array<std::uint32_t, kRows>, kNhSums> rows = {};
};

consteval nh_key_table make_nh_keys() {
  nh_key_table table;
  for (unsigned n = 0; n < kNhSums; ++n) {
    for (unsigned i = 0; i < table.columns[n].size(); ++i) table.columns[n][i] = nh_key(n, i);
    for (unsigned s = 0; s < kRows; ++s) table.rows[n][s] = nh_key(n, kRowKey + s);
  }
  return table;
}

inline constexpr nh_key_table kNhKeys = make_nh_keys();

/// The two sums of one tile: `H << 32 | L` each.
struct nh_sums {
  std::array<std::uint64_t, kNhSums> t = {};
};

/// `chain` of the spec, one step at a time: start with a position, then take in words.
[[nodiscard]] TERSOR_HD constexpr std::uint64_t chain_start(digest_domain domain,
                                                            std::uint64_t number) noexcept {
  return mix64((static_cast<std::uint64_t>(domain) << 56) | number);
}
[[nodiscard]] TERSOR_HD constexpr std::uint64_t chain_next(std::uint64_t hash, std::uint64_t word) noexcept {
  return mix64(word ^ hash);
}

[[nodiscard]] TERSOR_HD constexpr std::uint64_t tile_hash(const nh_sums& sums, digest_domain domain,
                                                          std::uint64_t tile) noexcept {
  return chain_next(chain_next(chain_start(domain, tile), sums.t[1]), sums.t[0]);
}

/// Hash of `n_words` little-endian words: index records and frame headers.
[[nodiscard]] TERSOR_HD inline std::uint64_t chain_hash(digest_domain domain, std::uint64_t number,
                                                        const std::uint8_t* words,
                                                        std::size_t n_words) noexcept {
  std::uint64_t hash = chain_start(domain, number);
  for (std::size_t i = 0; i < n_words; ++i)
    hash = chain_next(hash, core::load_le<std::uint64_t>(words + 8 * i));
  return hash;
}

}  // namespace tersor::codec_detail
