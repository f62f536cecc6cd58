// The frame header, the section layout that follows from it, and chunk records (spec/frame.md).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include <tersor/error.hpp>
#include <tersor/version.hpp>

namespace tersor::format {

inline constexpr std::array<std::uint8_t, 8> kFrameMagic = {0x89, 'T', 'E', 'R', 'S', 'O', 'R', 0x0a};
inline constexpr std::uint16_t kFrameVersion = kFrameFormatVersion;
inline constexpr std::uint64_t kFrameHeaderBytes = 128;
inline constexpr std::uint64_t kHeaderDigestOffset = 40;
inline constexpr std::uint64_t kSectionAlignment = 128;
inline constexpr std::uint32_t kMaxDims = 8;
inline constexpr std::uint64_t kChunkRecordBytes = 24;
inline constexpr std::uint64_t kRawRecordBytes = 8;
inline constexpr std::uint64_t kMaxFirstWord = (std::uint64_t{1} << 48) - 1;

/// The header's fields as they stand in the bytes.
struct frame_header {
  std::uint8_t codec = 0;
  std::uint8_t dtype = 0;
  std::uint8_t n_dims = 0;
  std::uint16_t level_widths = 0;
  std::uint64_t n_values = 0;
  std::uint64_t tail_words = 0;
  std::uint64_t index_digest = 0;
  std::uint64_t header_digest = 0;
  std::array<std::uint8_t, 16> codebook = {};
  std::array<std::uint64_t, kMaxDims> shape = {};
};

void write_frame_header(const frame_header& header, std::span<std::uint8_t, kFrameHeaderBytes> dst) noexcept;

/// True if the bytes begin with the magic.
[[nodiscard]] bool has_magic(std::span<const std::uint8_t> bytes) noexcept;

/// Version field; the caller has checked the size.
[[nodiscard]] std::uint16_t read_version(std::span<const std::uint8_t, kFrameHeaderBytes> src) noexcept;

/// Reads the fields and checks all that needs no knowledge of codecs: flags, dimensions, shape against
/// values, reserved bytes.
[[nodiscard]] result<frame_header> read_frame_header(std::span<const std::uint8_t, kFrameHeaderBytes> src);

/// What the sections of a frame are made of; the codec room fills it from codec and dtype.
struct plane_sizes {
  bool coded = false;
  std::uint32_t byte_planes = 0;                   ///< of 1,024 bytes a tile
  std::array<std::uint32_t, 2> field_widths = {};  ///< rest field planes, 128 w bytes a tile
  std::uint32_t code_width = 0;                    ///< code plane, 128 w bytes a tile
  std::uint64_t payload_bytes = 0;                 ///< raw frames
};

/// Offsets from the start of the frame. Sections that do not exist have the offset where they would be.
struct frame_layout {
  std::uint64_t n_tiles = 0;
  std::uint64_t n_chunks = 0;
  std::uint64_t index = 0;
  std::uint64_t index_bytes = 0;
  std::uint64_t record_bytes = 0;
  std::array<std::uint64_t, 3> byte_planes = {};
  std::array<std::uint64_t, 2> field_planes = {};
  std::uint64_t code_plane = 0;
  std::uint64_t tails = 0;  ///< payload in a raw frame
  std::uint64_t tails_end = 0;
  std::uint64_t frame_bytes = 0;
};

/// nullopt if a size leaves 63 bits.
[[nodiscard]] std::optional<frame_layout> make_layout(const plane_sizes& planes, std::uint64_t n_values,
                                                      std::uint64_t tail_words) noexcept;

/// One entry of a coded frame's index.
struct chunk_record {
  std::uint64_t digest = 0;
  std::uint64_t first_word = 0;  ///< 48 bits
  std::uint8_t escapes = 0;      ///< bit t: tile t has escapes
  std::uint8_t raw = 0;          ///< bit t: tile t is raw
  std::array<std::uint8_t, 8> words = {};

  [[nodiscard]] std::uint32_t total_words() const noexcept;
};

void write_chunk_record(const chunk_record& record, std::uint8_t* dst) noexcept;
[[nodiscard]] chunk_record read_chunk_record(const std::uint8_t* src) noexcept;

}  // namespace tersor::format
