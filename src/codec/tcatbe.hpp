// Both directions of the `tcatbe` layout (BF16 only), and its part of the matrix header.
//
// Header words: 4 = first exponent of the window, 6 = bitmaps, 7 = escapes, 8 = number of escapes, 9 =
// digests, 11 = index, 12 = coded, 13 = bytes of `coded`, 14 = bytes of `escapes`.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "codec/packed_matrix.hpp"
#include "codec/tcatbe_layout.hpp"
#include "core/thread_pool.hpp"
#include <tersor/packed.hpp>

namespace tersor::codec_detail {

inline constexpr std::size_t kWordTcatbeIndexAt = 11, kWordTcatbeCodedAt = 12, kWordTcatbeCodedBytes = 13,
                             kWordTcatbeEscapeBytes = 14;

/// nullopt if there are too many tiles.
[[nodiscard]] std::optional<tcatbe_sections> checked_tcatbe_sections(std::uint64_t rows,
                                                                     std::uint64_t cols) noexcept;
/// 0 if a size leaves 64 bits.
[[nodiscard]] std::uint64_t tcatbe_bound(std::uint64_t rows, std::uint64_t cols) noexcept;

/// The window of seven exponents that holds most of `counts`; the lowest of equals.
[[nodiscard]] std::uint32_t best_tcatbe_window(std::span<const std::uint64_t, 256> counts) noexcept;

/// Checks the words that the layouts have no meaning of in common and completes `info`, whose other fields
/// are filled from the header.
[[nodiscard]] status tcatbe_check(const matrix_words& words, matrix_info& info);

/// Packs any matrix that is not empty. Errors: `destination_too_small`, `size_overflow`.
[[nodiscard]] result<std::uint64_t> tcatbe_pack(core::thread_pool& pool,
                                                const matrix_place<const std::uint8_t>& src,
                                                std::span<std::uint8_t> dst);
/// `info` passed tcatbe_check and `bytes` begin with the matrix. Errors: `truncated`, `malformed`,
/// `digest_mismatch` with the 64 x 64 tile as chunk.
[[nodiscard]] status tcatbe_unpack(core::thread_pool& pool, const matrix_info& info,
                                   std::span<const std::uint8_t> bytes,
                                   const matrix_place<std::uint8_t>& dst);

}  // namespace tersor::codec_detail
