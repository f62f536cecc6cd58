// Frames over tile primitives: the algorithm that is the same for every backend.
#pragma once

#include <cstdint>
#include <span>

#include "codec/tile_ops.hpp"
#include "core/thread_pool.hpp"
#include "format/frame_header.hpp"
#include <tersor/codebook.hpp>
#include <tersor/error.hpp>
#include <tersor/tensor.hpp>

namespace tersor::codec_detail {

/// What a frame call runs on.
struct engine {
  const tile_ops* ops;
  core::thread_pool* pool;
};

/// Static facts of a dtype's split, indexed by dtype id 1..5.
struct dtype_planes {
  std::uint8_t value_bytes;
  std::uint8_t symbol_bits;
  std::uint8_t byte_planes;
  std::array<std::uint8_t, 2> field_widths;
};
/// Null for dtypes without a coded exponent.
[[nodiscard]] const dtype_planes* find_planes(dtype type) noexcept;

[[nodiscard]] std::uint16_t pack_widths(const level_plan& plan) noexcept;
[[nodiscard]] format::plane_sizes plane_sizes_of(codec c, dtype type, std::uint64_t n_values) noexcept;

/// A frame whose header and index were verified; pointers into the caller's bytes.
struct open_frame {
  format::frame_header header;
  format::frame_layout layout;
  tersor::codec codec = tersor::codec::raw;
  dtype type = dtype::bytes;
  std::uint64_t decoded_bytes = 0;
  const std::uint8_t* base = nullptr;
  /// Only when coded.
  coding code;
};

/// Steps 1-7 of spec/frame.md "Reading". `fills` = the frame must end where `bytes` ends.
[[nodiscard]] result<open_frame> open(std::span<const std::uint8_t> bytes, bool fills);

/// Digest of a byte string, W = 2.
[[nodiscard]] std::uint64_t digest_of(const tile_ops& ops, std::span<const std::uint8_t> bytes,
                                      digest_domain domain, std::uint64_t first_tile = 0) noexcept;
/// Digest of a frame header with its digest field taken as zero.
[[nodiscard]] std::uint64_t header_digest_of(
    std::span<const std::uint8_t, format::kFrameHeaderBytes> header) noexcept;
/// Digest of an index section of `record_bytes` a record.
[[nodiscard]] std::uint64_t index_digest_of(std::span<const std::uint8_t> index,
                                            std::size_t record_bytes) noexcept;

/// Both return the frame's size; `dst` holds at least the bound.
[[nodiscard]] result<std::uint64_t> encode_coded(const engine& e, tersor::codec c, const tensor_view& src,
                                                 const codebook& book, std::span<std::uint8_t> dst);
[[nodiscard]] result<std::uint64_t> encode_raw(const engine& e, const tensor_view& src,
                                               std::span<std::uint8_t> dst);

/// Decodes chunks [first, first + count) into the start of `dst`, which holds them.
[[nodiscard]] status decode_range(const engine& e, const open_frame& frame, std::uint64_t first,
                                  std::uint64_t count, std::uint8_t* dst);

/// Compares the chunk digests with `decoded`, which holds `frame.decoded_bytes`.
[[nodiscard]] status compare_chunks(const engine& e, const open_frame& frame, const std::uint8_t* decoded);

/// Symbol counts with all workers.
[[nodiscard]] histogram count_all(const engine& e, dtype type, std::span<const std::uint8_t> data);

}  // namespace tersor::codec_detail
