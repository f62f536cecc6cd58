#include "model/tensor_file_range.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>

#include "codec/header_verdict.hpp"
#include "codec/packed_matrix.hpp"
#include "codec/tcatbe.hpp"
#include "core/bytes.hpp"
#include "core/checked.hpp"
#include "cpu/context_impl.hpp"
#include "format/container_header.hpp"
#include "model/tensor_reader.hpp"
#include <tersor/tensor_file.hpp>

namespace tersor::model_detail {
namespace {

using codec_detail::engine;
using cpu::as_u8;

/// Copied and hashed at a time; a multiple of the digest's tile.
constexpr std::uint64_t kCopyBytes = std::uint64_t{2} << 20;
constexpr std::uint64_t kDigestTileBytes =
    std::uint64_t{codec_detail::kTileValues} * codec_detail::kRawDigestValueBytes;
static_assert(kCopyBytes % kDigestTileBytes == 0 && tensor_file::kStoredStep == kDigestTileBytes);

using head_bytes = std::array<std::byte, format::kFrameHeaderBytes>;

/// The frame is the one that was opened: its header is the one in the digest list.
template <class Digest>
status check_digest(const container_item& item, Digest digest, std::uint64_t offset) {
  if (digest == item.digest) return {};
  return fail_at(errc::digest_mismatch, "the frame is not the one in the digest list", offset);
}

/// Decodes in whole units of `unit_bytes` (chunks, rows of blocks): straight to their places, but for the
/// first and the last one where the range begins or ends inside them. `decode(first, count, to)`.
template <class Decode>
status decode_units(std::uint64_t total, std::uint64_t unit_bytes, std::uint64_t begin,
                    std::span<std::byte> dst, Decode&& decode) {
  const std::uint64_t end = begin + dst.size();
  const auto end_of = [&](std::uint64_t unit) { return std::min((unit + 1) * unit_bytes, total); };
  std::vector<std::byte> edge;
  std::uint64_t at = begin;
  while (at < end) {
    const std::uint64_t unit = at / unit_bytes;
    const std::uint64_t unit_begin = unit * unit_bytes;
    const std::uint64_t unit_end = end_of(unit);
    const auto to = dst.subspan(static_cast<std::size_t>(at - begin));
    if (at == unit_begin && end >= unit_end) {
      const std::uint64_t stop = end == total ? core::ceil_div(total, unit_bytes) : end / unit_bytes;
      TERSOR_CHECK(decode(unit, stop - unit, to));
      at = std::min(stop * unit_bytes, total);
      continue;
    }
    edge.resize(static_cast<std::size_t>(unit_end - unit_begin));
    TERSOR_CHECK(decode(unit, 1, std::span(edge)));
    const std::uint64_t n_bytes = std::min(unit_end, end) - at;
    std::memcpy(to.data(), edge.data() + (at - unit_begin), static_cast<std::size_t>(n_bytes));
    at += n_bytes;
  }
  return {};
}

status read_frame(const engine& e, const container_item& item, std::span<const std::byte> bytes,
                  std::uint64_t begin, std::span<std::byte> dst) {
  TERSOR_TRY(const auto frame, codec_detail::open(as_u8(bytes), true));
  TERSOR_CHECK(check_digest(item, frame.header.header_digest, format::kHeaderDigestOffset));
  if (frame.decoded_bytes != item.original_bytes())
    return fail_at(errc::malformed, "the frame does not hold the tensor", 0);
  const std::uint64_t unit = frame.codec == codec::raw
                                 ? codec_detail::kRawChunkBytes
                                 : std::uint64_t{codec_detail::kChunkValues} * value_bytes(frame.type);
  return decode_units(frame.decoded_bytes, unit, begin, dst,
                      [&](std::uint64_t first, std::uint64_t count, std::span<std::byte> to) {
                        return codec_detail::decode_range(e, frame, first, count, as_u8(to).data());
                      });
}

status read_matrix(const engine& e, const container_item& item, std::span<const std::byte> bytes,
                   std::uint64_t begin, std::span<std::byte> dst) {
  TERSOR_TRY(const matrix_info info, codec_detail::read_matrix_header(as_u8(bytes)));
  TERSOR_CHECK(check_digest(item, info.digest, 8 * codec_detail::kWordHeaderDigest));
  const std::uint64_t total = item.original_bytes();
  const std::uint64_t row_bytes = info.cols * value_bytes(info.type);
  if (info.n_bytes != bytes.size() || info.rows * row_bytes != total)
    return fail_at(errc::malformed, "the matrix frame does not hold the tensor", 0);
  const auto place_of = [&](std::span<std::byte> to) {
    return codec_detail::matrix_place<std::uint8_t>{
        .data = as_u8(to).data(), .rows = info.rows, .cols = info.cols, .stride = info.cols};
  };
  if (info.layout == matrix_layout::packed) {
    return decode_units(total, codec_detail::packed_geometry::kRows * row_bytes, begin, dst,
                        [&](std::uint64_t first, std::uint64_t count, std::span<std::byte> to) {
                          return codec_detail::unpack_block_rows(e, info, as_u8(bytes), first, count,
                                                                 place_of(to));
                        });
  }
  return decode_units(total, total, begin, dst, [&](std::uint64_t, std::uint64_t, std::span<std::byte> to) {
    return codec_detail::tcatbe_unpack(*e.pool, info, as_u8(bytes), place_of(to));
  });
}

std::uint64_t share_of(const engine& e, std::uint64_t at, std::span<const std::byte> bytes) noexcept {
  return codec_detail::digest_of(*e.ops, as_u8(bytes), codec_detail::digest_domain::stored_tensor,
                                 at / kDigestTileBytes);
}

/// Copies stored bytes with all threads, and hashes what was copied.
status read_stored(const engine& e, const container& from, const container_item& item, bool compared,
                   std::uint64_t begin, std::span<std::byte> dst) {
  const std::uint64_t n_parts = core::ceil_div(dst.size(), kCopyBytes);
  std::atomic<std::uint64_t> next{0};
  std::atomic<std::uint64_t> digest{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  status outcome;
  e.pool->run(static_cast<unsigned>(std::min<std::uint64_t>(n_parts, e.pool->size())), [&](unsigned) {
    for (std::uint64_t part = next++; part < n_parts && !failed; part = next++) {
      const std::uint64_t at = part * kCopyBytes;
      const auto to = dst.subspan(static_cast<std::size_t>(at),
                                  static_cast<std::size_t>(std::min(kCopyBytes, dst.size() - at)));
      // Not through the mapping: pread copies as fast, and a disk that fails is an error.
      if (auto read = from.file.read_at(item.at + begin + at, to); !read) {
        const std::lock_guard lock(mutex);
        outcome = std::move(read);
        failed = true;
      } else if (compared) {
        digest += share_of(e, at, to);
      }
    }
  });
  TERSOR_CHECK(outcome);
  if (compared && digest != item.digest)
    return fail_at(errc::digest_mismatch, "digest of a stored tensor differs", 0);
  return {};
}

status read_any(const context& ctx, const container& from, const container_item& item, bool has_digests,
                std::uint64_t begin, std::span<std::byte> dst) {
  const engine e = cpu::engine_of(ctx);
  const bool whole = dst.size() == item.original_bytes();
  if (!item.coded) return read_stored(e, from, item, has_digests && whole, begin, dst);
  std::vector<std::byte> scratch;
  TERSOR_TRY(const auto bytes, from.file.view(item.at, item.n_bytes, scratch));
  status read = codec_detail::is_matrix_frame(bytes) ? read_matrix(e, item, bytes, begin, dst)
                                                     : read_frame(e, item, bytes, begin, dst);
  if (whole) from.file.drop(item.at, item.n_bytes);
  return read;
}

/// Errors of the file name it already; those of a frame count from its start.
tl::unexpected<error> placed(error e, const container& from, const container_item& item) {
  if (e.file.empty()) {
    e.file = from.file.path().string();
    e.byte_offset = item.at + e.byte_offset.value_or(0);
  }
  e.tensor = item.original.name;
  return tl::unexpected<error>(std::move(e));
}

/// What a frame's header says; nothing if anything about it is wrong.
std::optional<frame_info> read_head(const container_item& item, const head_bytes& head) {
  const auto bytes = as_u8(std::span<const std::byte>(head)).first<format::kFrameHeaderBytes>();
  std::array<std::uint64_t, format::kFrameHeaderBytes / 8> words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = core::load_le<std::uint64_t>(head.data() + 8 * i);
  const auto verdict = codec_detail::judge_header(
      words.data(), codec_detail::header_digest_of(bytes), item.n_bytes,
      codec_detail::book_of(words[1]).n_entries == 0 || codec_detail::has_valid_book(words.data()));
  if (verdict.code != 0 || verdict.frame_bytes != item.n_bytes) return std::nullopt;
  const auto fields = format::read_frame_header(bytes);
  if (!fields || fields->header_digest != item.digest) return std::nullopt;
  frame_info info{.codec = static_cast<codec>(fields->codec), .type = static_cast<dtype>(fields->dtype)};
  info.shape.assign(fields->shape.begin(), fields->shape.begin() + fields->n_dims);
  const auto& shape = item.original.shape;
  const bool fits =
      shape.size() > format::kMaxDims ? info.shape == std::vector{fields->n_values} : info.shape == shape;
  const auto decoded = core::checked_mul(fields->n_values, value_bytes(info.type));
  if (!fits || to_string(info.type) != item.original.dtype || decoded != item.original_bytes())
    return std::nullopt;
  info.n_values = fields->n_values;
  info.frame_bytes = item.n_bytes;
  info.digest = fields->header_digest;
  return info;
}

/// The same for a matrix frame.
std::optional<matrix_info> read_matrix_head(const container_item& item, const head_bytes& head) {
  const auto info = codec_detail::read_matrix_header(as_u8(std::span<const std::byte>(head)));
  if (!info || info->n_bytes != item.n_bytes || info->digest != item.digest ||
      to_string(info->type) != item.original.dtype ||
      item.original.shape != std::vector{info->rows, info->cols}) {
    return std::nullopt;
  }
  return *info;
}

result<coded_info> check_head(const container& from, const container_item& item) {
  head_bytes head;
  if (item.n_bytes >= head.size()) {
    TERSOR_CHECK(from.file.read_at(item.at, head));
    if (codec_detail::is_matrix_frame(head)) {
      if (auto info = read_matrix_head(item, head)) return coded_info{.matrix = info};
    } else if (auto info = read_head(item, head)) {
      return coded_info{.frame = std::move(*info)};
    }
  }
  // Something is wrong: the strict reader says what.
  std::vector<std::byte> scratch;
  TERSOR_TRY(const auto bytes, from.file.view(item.at, item.n_bytes, scratch));
  return check_coded(item, bytes);
}

}  // namespace

result<coded_info> check_coded_head(const container& from, const container_item& item) {
  auto info = check_head(from, item);
  if (info) return info;
  return placed(std::move(info).error(), from, item);
}

std::uint64_t stored_share(const context& ctx, std::uint64_t offset,
                           std::span<const std::byte> bytes) noexcept {
  return share_of(cpu::engine_of(ctx), offset, bytes);
}

status read_range(const context& ctx, const container& from, const container_item& item, bool has_digests,
                  std::uint64_t begin, std::span<std::byte> dst) {
  auto read = read_any(ctx, from, item, has_digests, begin, dst);
  if (read) return read;
  return placed(std::move(read).error(), from, item);
}

}  // namespace tersor::model_detail
