#include <algorithm>
#include <cstring>
#include <string>

#include "codec/frame_codec.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

using format::kFrameHeaderBytes;

constexpr std::array<dtype_planes, kCodedDtypes> kPlanes = {{
    {.value_bytes = 2, .symbol_bits = 8, .byte_planes = 1, .field_widths = {0, 0}},  // BF16
    {.value_bytes = 2, .symbol_bits = 5, .byte_planes = 1, .field_widths = {2, 1}},  // F16
    {.value_bytes = 4, .symbol_bits = 8, .byte_planes = 3, .field_widths = {0, 0}},  // F32
    {.value_bytes = 1, .symbol_bits = 4, .byte_planes = 0, .field_widths = {4, 0}},  // F8_E4M3
    {.value_bytes = 1, .symbol_bits = 5, .byte_planes = 0, .field_widths = {2, 1}},  // F8_E5M2
}};

constexpr std::uint8_t kLastDtype = static_cast<std::uint8_t>(dtype::f64);

status check_record(const open_frame& frame, const format::chunk_record& record, std::uint64_t chunk,
                    std::uint64_t offset) {
  const auto bad = [&](const char* why) {
    auto e = fail_at(errc::malformed, why, offset);
    e.value().chunk = chunk;
    return e;
  };
  const std::uint64_t tiles =
      std::min<std::uint64_t>(kChunkTiles, frame.layout.n_tiles - chunk * kChunkTiles);
  const auto exists = static_cast<std::uint32_t>((1u << tiles) - 1);
  if (((record.escapes | record.raw) & ~exists) != 0)
    return bad("chunk record flags a tile that does not exist");
  if ((record.escapes & record.raw) != 0) return bad("chunk record flags a tile as raw and with escapes");
  const std::uint32_t raw_words = frame.code.plan.raw_words();
  for (std::uint32_t t = 0; t < kChunkTiles; ++t) {
    const bool raw = ((record.raw >> t) & 1) != 0;
    if (t >= tiles ? record.words[t] != 0
        : raw      ? record.words[t] != raw_words
                   : record.words[t] >= raw_words) {
      return bad("chunk record holds an impossible tail length");
    }
  }
  const std::uint64_t words = record.total_words();
  if (record.first_word > frame.header.tail_words || words > frame.header.tail_words - record.first_word) {
    return bad("chunk's tail leaves the tails section");
  }
  return {};
}

status check_index(const open_frame& frame) {
  const std::uint8_t* index = frame.base + frame.layout.index;
  const std::uint64_t digest = index_digest_of({index, frame.layout.index_bytes}, frame.layout.record_bytes);
  if (digest != frame.header.index_digest) {
    return fail_at(errc::digest_mismatch, "chunk index digest differs", frame.layout.index);
  }
  if (frame.codec == codec::raw) return {};
  std::uint64_t words = 0;
  for (std::uint64_t chunk = 0; chunk < frame.layout.n_chunks; ++chunk) {
    const std::uint64_t at = chunk * format::kChunkRecordBytes;
    const format::chunk_record record = format::read_chunk_record(index + at);
    TERSOR_CHECK(check_record(frame, record, chunk, frame.layout.index + at));
    words += record.total_words();
  }
  if (words != frame.header.tail_words) {
    return fail_at(errc::malformed, "tail lengths do not sum to the declared tail words", frame.layout.index);
  }
  return {};
}

/// Everything between the sections is zero.
status check_padding(const open_frame& frame) {
  const format::frame_layout& layout = frame.layout;
  const auto zero = [&](std::uint64_t from, std::uint64_t to) -> status {
    for (std::uint64_t i = from; i < to; ++i) {
      if (frame.base[i] != 0) return fail_at(errc::malformed, "padding between sections is not zero", i);
    }
    return {};
  };
  const std::uint64_t index_end = layout.index + layout.index_bytes;
  TERSOR_CHECK(zero(index_end, core::align_up(index_end, format::kSectionAlignment)));
  return zero(layout.tails_end, layout.frame_bytes);
}

/// Each record is hashed by itself, so that they can be hashed at the same time.
std::uint64_t sum_of_chains(digest_domain domain, std::span<const std::uint8_t> records,
                            std::size_t record_bytes) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < records.size() / record_bytes; ++i) {
    sum += chain_hash(domain, i, records.data() + i * record_bytes, record_bytes / 8);
  }
  return sum;
}

/// Codec, dtype, widths and codebook: the fields that need the codecs to judge.
status check_codec_fields(const format::frame_header& header) {
  if (header.codec > static_cast<std::uint8_t>(codec::rank)) {
    return fail_at(errc::unsupported, "unknown codec " + std::to_string(header.codec), 10);
  }
  if (header.dtype > kLastDtype)
    return fail_at(errc::unsupported, "unknown dtype " + std::to_string(header.dtype), 11);
  const auto c = static_cast<codec>(header.codec);
  if (c == codec::raw) {
    const bool zero_book = std::ranges::all_of(header.codebook, [](std::uint8_t b) { return b == 0; });
    if (header.level_widths != 0 || !zero_book || header.tail_words != 0) {
      return fail_at(errc::malformed, "a raw frame has no levels, codebook or tails", 14);
    }
    return {};
  }
  const dtype_planes* planes = find_planes(static_cast<dtype>(header.dtype));
  if (planes == nullptr) return fail_at(errc::malformed, "this dtype has no exponent to code", 11);
  const level_plan plan = make_plan(c, planes->symbol_bits);
  if (header.level_widths != pack_widths(plan)) {
    return fail_at(errc::unsupported, "level widths that this version does not know", 14);
  }
  if (!is_valid_book(plan, codebook{.symbols = header.codebook})) {
    return fail_at(errc::malformed, "codebook entries repeat or leave the symbol width", 48);
  }
  return {};
}

}  // namespace

const dtype_planes* find_planes(dtype type) noexcept {
  const auto id = static_cast<std::size_t>(type);
  return id >= 1 && id <= kPlanes.size() ? &kPlanes[id - 1] : nullptr;
}

std::uint16_t pack_widths(const level_plan& plan) noexcept {
  std::uint32_t packed = 0;
  for (std::uint32_t i = 0; i < kMaxLevels; ++i)
    packed |= static_cast<std::uint32_t>(plan.widths[i]) << (4 * i);
  return static_cast<std::uint16_t>(packed);
}

format::plane_sizes plane_sizes_of(codec c, dtype type, std::uint64_t n_values) noexcept {
  format::plane_sizes sizes;
  const dtype_planes* planes = find_planes(type);
  if (c == codec::raw || planes == nullptr) {
    const auto bytes = core::checked_mul(n_values, value_bytes(type));
    sizes.payload_bytes = bytes ? *bytes : ~std::uint64_t{0};
    return sizes;
  }
  sizes.coded = true;
  sizes.byte_planes = planes->byte_planes;
  sizes.field_widths = {planes->field_widths[0], planes->field_widths[1]};
  sizes.code_width = make_plan(c, planes->symbol_bits).widths[0];
  return sizes;
}

std::uint64_t digest_of(const tile_ops& ops, std::span<const std::uint8_t> bytes, digest_domain domain,
                        std::uint64_t first_tile) noexcept {
  constexpr std::size_t kTileBytes = std::size_t{kTileValues} * kRawDigestValueBytes;
  std::uint64_t sum = 0;
  nh_sums sums;
  std::uint64_t tile = first_tile;
  while (bytes.size() >= kTileBytes) {
    ops.nh(bytes.data(), kRawDigestValueBytes, sums);
    sum += tile_hash(sums, domain, tile++);
    bytes = bytes.subspan(kTileBytes);
  }
  if (!bytes.empty()) {
    std::array<std::uint8_t, kTileBytes> last = {};
    std::ranges::copy(bytes, last.begin());
    ops.nh(last.data(), kRawDigestValueBytes, sums);
    sum += tile_hash(sums, domain, tile);
  }
  return sum;
}

std::uint64_t header_digest_of(std::span<const std::uint8_t, kFrameHeaderBytes> header) noexcept {
  std::array<std::uint8_t, kFrameHeaderBytes> copy;
  std::ranges::copy(header, copy.begin());
  std::fill_n(copy.begin() + format::kHeaderDigestOffset, 8, std::uint8_t{0});
  return sum_of_chains(digest_domain::frame_header, copy, 8);
}

std::uint64_t index_digest_of(std::span<const std::uint8_t> index, std::size_t record_bytes) noexcept {
  return sum_of_chains(digest_domain::index, index, record_bytes);
}

result<open_frame> open(std::span<const std::uint8_t> bytes, bool fills) {
  if (bytes.size() < kFrameHeaderBytes) {
    return fail_at(errc::truncated, "a frame has at least 128 bytes", bytes.size());
  }
  if (!format::has_magic(bytes)) return fail_at(errc::bad_magic, "not a Tersor frame", 0);
  const auto head = bytes.first<kFrameHeaderBytes>();
  open_frame frame;
  frame.base = bytes.data();
  const std::uint64_t digest = header_digest_of(head);
  if (digest != core::load_le<std::uint64_t>(head.data() + format::kHeaderDigestOffset)) {
    return fail_at(errc::digest_mismatch, "frame header digest differs", format::kHeaderDigestOffset);
  }
  if (const std::uint16_t version = format::read_version(head); version != format::kFrameVersion) {
    return fail_at(errc::unsupported_version,
                   "frame version " + std::to_string(version) + " is not one that this Tersor reads (" +
                       std::to_string(format::kFrameVersion) + ")",
                   8);
  }
  TERSOR_TRY(frame.header, format::read_frame_header(head));
  TERSOR_CHECK(check_codec_fields(frame.header));
  frame.codec = static_cast<codec>(frame.header.codec);
  frame.type = static_cast<dtype>(frame.header.dtype);
  const auto decoded = core::checked_mul(frame.header.n_values, value_bytes(frame.type));
  const auto layout = format::make_layout(plane_sizes_of(frame.codec, frame.type, frame.header.n_values),
                                          frame.header.n_values, frame.header.tail_words);
  if (!decoded || !layout) return fail_at(errc::size_overflow, "declared sizes leave 64 bits", 16);
  frame.decoded_bytes = *decoded;
  frame.layout = *layout;
  if (layout->frame_bytes > bytes.size()) {
    return fail_at(errc::truncated,
                   "frame declares " + std::to_string(layout->frame_bytes) + " bytes, " +
                       std::to_string(bytes.size()) + " are there",
                   bytes.size());
  }
  if (fills && layout->frame_bytes != bytes.size()) {
    return fail_at(errc::malformed, "bytes after the end of the frame", layout->frame_bytes);
  }
  if (frame.codec != codec::raw) {
    const level_plan plan = make_plan(frame.codec, find_planes(frame.type)->symbol_bits);
    frame.code = make_coding(plan, codebook{.symbols = frame.header.codebook});
  }
  TERSOR_CHECK(check_index(frame));
  TERSOR_CHECK(check_padding(frame));
  return frame;
}

}  // namespace tersor::codec_detail
