// One block of the `packed` layout: what packing and unpacking share.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "codec/packed_layout.hpp"
#include "codec/packed_matrix.hpp"
#include "codec/packed_order.hpp"
#include "codec/tile_ops.hpp"
#include "core/bytes.hpp"

namespace tersor::codec_detail {

template <bool Half>
struct packed_split {
  static constexpr std::uint32_t kMantissaBits = Half ? 10 : 7;
  static constexpr std::uint32_t kSymbols = Half ? 32 : 256;
  static constexpr std::uint32_t kAllOnes = kSymbols - 1;
  static constexpr std::uint32_t kSymbolMask = kAllOnes << kMantissaBits;
};

/// Code of the padding: code 1 if code 0 would make it infinite or not a number.
template <bool Half>
[[nodiscard]] constexpr std::uint32_t padding_code(std::uint32_t first_symbol) noexcept {
  return first_symbol == packed_split<Half>::kAllOnes ? 1 : 0;
}

/// Tile-order index of the granule that stands at granule `n` of `rest` (position / 8).
[[nodiscard]] constexpr std::uint32_t tile_granule(std::uint32_t n) noexcept {
  return (n / 64 * 2 + n % 2) * 32 + n / 2 % 32;
}

/// The digest of block `block` from its values in tile order.
[[nodiscard]] inline std::uint64_t block_digest(const tile_ops& ops, const std::uint8_t* values,
                                                std::uint64_t block) noexcept {
  nh_sums sums;
  ops.nh(values, 2, sums);
  const std::uint64_t first = tile_hash(sums, digest_domain::matrix_block, 2 * block);
  ops.nh(values + kBlockValueBytes / 2, 2, sums);
  return first + tile_hash(sums, digest_domain::matrix_block, 2 * block + 1);
}

}  // namespace tersor::codec_detail
