#include "format/frame_header.hpp"

#include <algorithm>
#include <string>

#include "core/bytes.hpp"
#include "core/checked.hpp"

namespace tersor::format {
namespace {

using core::load_le;
using core::store_le;

// Field offsets of spec/frame.md, "Header".
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kCodecAt = 10;
constexpr std::size_t kDtypeAt = 11;
constexpr std::size_t kDimsAt = 12;
constexpr std::size_t kFlagsAt = 13;
constexpr std::size_t kWidthsAt = 14;
constexpr std::size_t kValuesAt = 16;
constexpr std::size_t kTailWordsAt = 24;
constexpr std::size_t kIndexDigestAt = 32;
constexpr std::size_t kCodebookAt = 48;
constexpr std::size_t kShapeAt = 64;

constexpr std::uint64_t kTileValues = 1024;
constexpr std::uint64_t kChunkTiles = 8;
constexpr std::uint64_t kRawChunkBytes = 16384;
/// Keeps every sum of sections inside 64 bits: no section is larger than 2^60 bytes.
constexpr std::uint64_t kMaxSectionBytes = std::uint64_t{1} << 60;

}  // namespace

void write_frame_header(const frame_header& header, std::span<std::uint8_t, kFrameHeaderBytes> dst) noexcept {
  std::uint8_t* p = dst.data();
  std::ranges::fill(dst, std::uint8_t{0});
  std::ranges::copy(kFrameMagic, p);
  store_le<std::uint16_t>(p + kVersionAt, kFrameVersion);
  p[kCodecAt] = header.codec;
  p[kDtypeAt] = header.dtype;
  p[kDimsAt] = header.n_dims;
  store_le<std::uint16_t>(p + kWidthsAt, header.level_widths);
  store_le<std::uint64_t>(p + kValuesAt, header.n_values);
  store_le<std::uint64_t>(p + kTailWordsAt, header.tail_words);
  store_le<std::uint64_t>(p + kIndexDigestAt, header.index_digest);
  store_le<std::uint64_t>(p + kHeaderDigestOffset, header.header_digest);
  std::ranges::copy(header.codebook, p + kCodebookAt);
  for (std::size_t i = 0; i < kMaxDims; ++i) store_le<std::uint64_t>(p + kShapeAt + 8 * i, header.shape[i]);
}

bool has_magic(std::span<const std::uint8_t> bytes) noexcept {
  return bytes.size() >= kFrameMagic.size() &&
         std::ranges::equal(bytes.first(kFrameMagic.size()), kFrameMagic);
}

std::uint16_t read_version(std::span<const std::uint8_t, kFrameHeaderBytes> src) noexcept {
  return load_le<std::uint16_t>(src.data() + kVersionAt);
}

result<frame_header> read_frame_header(std::span<const std::uint8_t, kFrameHeaderBytes> src) {
  const std::uint8_t* p = src.data();
  frame_header header;
  header.codec = p[kCodecAt];
  header.dtype = p[kDtypeAt];
  header.n_dims = p[kDimsAt];
  header.level_widths = load_le<std::uint16_t>(p + kWidthsAt);
  header.n_values = load_le<std::uint64_t>(p + kValuesAt);
  header.tail_words = load_le<std::uint64_t>(p + kTailWordsAt);
  header.index_digest = load_le<std::uint64_t>(p + kIndexDigestAt);
  header.header_digest = load_le<std::uint64_t>(p + kHeaderDigestOffset);
  std::copy_n(p + kCodebookAt, header.codebook.size(), header.codebook.begin());
  for (std::size_t i = 0; i < kMaxDims; ++i) header.shape[i] = load_le<std::uint64_t>(p + kShapeAt + 8 * i);

  if (p[kFlagsAt] != 0) return fail_at(errc::malformed, "frame flags must be zero", kFlagsAt);
  if (header.n_dims > kMaxDims) return fail_at(errc::malformed, "more than 8 dimensions", kDimsAt);
  std::uint64_t product = 1;
  for (std::size_t i = 0; i < kMaxDims; ++i) {
    if (i >= header.n_dims) {
      if (header.shape[i] != 0)
        return fail_at(errc::malformed, "unused shape entry is not zero", kShapeAt + 8 * i);
      continue;
    }
    const auto next = core::checked_mul(product, header.shape[i]);
    if (!next) return fail_at(errc::size_overflow, "product of the shape leaves 64 bits", kShapeAt + 8 * i);
    product = *next;
  }
  if (product != header.n_values) {
    return fail_at(errc::malformed,
                   "shape has " + std::to_string(product) + " values, the header declares " +
                       std::to_string(header.n_values),
                   kValuesAt);
  }
  return header;
}

std::optional<frame_layout> make_layout(const plane_sizes& planes, std::uint64_t n_values,
                                        std::uint64_t tail_words) noexcept {
  frame_layout layout;
  layout.n_tiles = core::ceil_div(n_values, kTileValues);
  layout.n_chunks = planes.coded ? core::ceil_div(layout.n_tiles, kChunkTiles)
                                 : core::ceil_div(planes.payload_bytes, kRawChunkBytes);
  std::uint64_t at = kFrameHeaderBytes;
  bool fits = true;
  const auto section = [&](std::uint64_t count, std::uint64_t unit_bytes) noexcept {
    const std::uint64_t start = at;
    const auto bytes = core::checked_mul(count, unit_bytes);
    if (!bytes || *bytes > kMaxSectionBytes) {
      fits = false;
      return start;
    }
    at = core::align_up(at + *bytes, kSectionAlignment);
    return start;
  };
  layout.record_bytes = planes.coded ? kChunkRecordBytes : kRawRecordBytes;
  layout.index = section(layout.n_chunks, layout.record_bytes);
  layout.index_bytes = fits ? layout.n_chunks * layout.record_bytes : 0;
  if (planes.coded) {
    for (std::size_t i = 0; i < layout.byte_planes.size(); ++i) {
      layout.byte_planes[i] = section(i < planes.byte_planes ? layout.n_tiles : 0, kTileValues);
    }
    for (std::size_t i = 0; i < layout.field_planes.size(); ++i) {
      layout.field_planes[i] = section(layout.n_tiles, planes.field_widths[i] * (kTileValues / 8));
    }
    layout.code_plane = section(layout.n_tiles, planes.code_width * (kTileValues / 8));
    layout.tails = section(tail_words, 4);
    layout.tails_end = fits ? layout.tails + tail_words * 4 : 0;
  } else {
    layout.tails = section(planes.payload_bytes, 1);
    layout.tails_end = fits ? layout.tails + planes.payload_bytes : 0;
  }
  layout.frame_bytes = at;
  if (!fits) return std::nullopt;
  return layout;
}

std::uint32_t chunk_record::total_words() const noexcept {
  std::uint32_t total = 0;
  for (const std::uint8_t n : words) total += n;
  return total;
}

void write_chunk_record(const chunk_record& record, std::uint8_t* dst) noexcept {
  store_le<std::uint64_t>(dst, record.digest);
  store_le<std::uint64_t>(
      dst + 8, record.first_word | (std::uint64_t{record.escapes} << 48) | (std::uint64_t{record.raw} << 56));
  std::ranges::copy(record.words, dst + 16);
}

chunk_record read_chunk_record(const std::uint8_t* src) noexcept {
  chunk_record record;
  record.digest = load_le<std::uint64_t>(src);
  const auto place = load_le<std::uint64_t>(src + 8);
  record.first_word = place & kMaxFirstWord;
  record.escapes = static_cast<std::uint8_t>(place >> 48);
  record.raw = static_cast<std::uint8_t>(place >> 56);
  std::copy_n(src + 16, record.words.size(), record.words.begin());
  return record;
}

}  // namespace tersor::format
