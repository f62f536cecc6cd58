// Tensors as Tersor sees them: a dtype, a shape and bytes that belong to somebody else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <tersor/error.hpp>

namespace tersor {

/// Element types with their numbers in the frame header. The first five have an exponent to code; the others
/// travel in `raw` frames.
enum class dtype : std::uint8_t {
  bytes = 0,  ///< opaque bytes, for types Tersor does not know
  bf16 = 1,
  f16 = 2,
  f32 = 3,
  f8_e4m3 = 4,
  f8_e5m2 = 5,
  boolean = 6,
  u8 = 7,
  i8 = 8,
  u16 = 9,
  i16 = 10,
  u32 = 11,
  i32 = 12,
  u64 = 13,
  i64 = 14,
  f64 = 15,
};

/// How a frame's chunks are coded; the numbers stand in the frame header.
enum class codec : std::uint8_t {
  raw = 0,    ///< bytes as they are, with digests
  top16 = 1,  ///< fixed 4-bit exponent codes (SplitZip's scheme), 12.03 bits a BF16 value
  rank = 2,   ///< nested 2-2-2-3 bit exponent codes addressed by rank, near the entropy
};

/// Size of one element in bytes (1 for `bytes`).
[[nodiscard]] std::uint32_t value_bytes(dtype type) noexcept;

/// safetensors' name of a dtype, e.g. "BF16", "F8_E4M3"; "BYTES" for `bytes`.
[[nodiscard]] std::string_view to_string(dtype type) noexcept;
/// The dtype of a safetensors name; nullopt for names without a whole-byte equivalent here.
[[nodiscard]] std::optional<dtype> parse_dtype(std::string_view name) noexcept;

[[nodiscard]] std::string_view to_string(codec c) noexcept;
[[nodiscard]] std::optional<codec> parse_codec(std::string_view name) noexcept;

/// True if the dtype has an exponent field that `top16` and `rank` can code.
[[nodiscard]] bool is_codable(dtype type) noexcept;

/// A tensor in somebody else's memory, row-major and contiguous, any alignment, little-endian elements.
/// `data.size()` must be the product of `shape` times `value_bytes(type)`; a rank-0 shape is one value.
struct tensor_view {
  dtype type = dtype::bytes;
  std::span<const std::uint64_t> shape = {};
  std::span<const std::byte> data = {};
};

/// A decoded tensor that owns its bytes.
struct tensor {
  dtype type = dtype::bytes;
  std::vector<std::uint64_t> shape = {};
  std::vector<std::byte> data = {};
};

}  // namespace tersor
