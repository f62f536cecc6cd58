#include "model/tensor_reader.hpp"

#include <algorithm>

#include "codec/frame_codec.hpp"
#include "codec/packed_matrix.hpp"
#include "core/checked.hpp"
#include "format/container_header.hpp"

namespace tersor::model_detail {
namespace {

constexpr std::uint64_t kStepBytes = std::uint64_t{16} << 20;
/// Every step checks the frame's index again, so that a tensor has at most this many.
constexpr std::uint64_t kMaxSteps = 16;
constexpr std::uint64_t kCopyBytes = std::uint64_t{64} << 20;

std::uint64_t chunk_bytes_of(const frame_info& info) noexcept {
  return info.codec == codec::raw ? codec_detail::kRawChunkBytes
                                  : std::uint64_t{codec_detail::kChunkValues} * value_bytes(info.type);
}

status decode_steps(const context& ctx, std::span<const std::byte> frame, const frame_info& info,
                    byte_sink& sink, const step_hook& after_step) {
  const std::uint64_t chunk_bytes = chunk_bytes_of(info);
  const std::uint64_t step_bytes = std::max(kStepBytes, core::ceil_div(info.decoded_bytes, kMaxSteps));
  const std::uint64_t step = core::ceil_div(step_bytes, chunk_bytes);
  for (std::uint64_t first = 0; first < info.n_chunks; first += step) {
    const std::uint64_t count = std::min(step, info.n_chunks - first);
    const std::uint64_t n_bytes = std::min(count * chunk_bytes, info.decoded_bytes - first * chunk_bytes);
    TERSOR_TRY(const std::span<std::byte> to, sink.room(n_bytes));
    TERSOR_CHECK(decode_chunks(ctx, frame, first, count, to));
    TERSOR_CHECK(sink.take(n_bytes));
    TERSOR_CHECK(after_step(n_bytes));
  }
  return {};
}

status copy_steps(const context& ctx, std::span<const std::byte> bytes, const container_item& item,
                  byte_sink& sink, const step_hook& after_step) {
  if (digest_bytes(ctx, format::kStoredDigestDomain, bytes) != item.digest) {
    return fail_at(errc::digest_mismatch, "digest of a stored tensor differs", 0);
  }
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<std::size_t>(bytes.size(), kCopyBytes));
    TERSOR_CHECK(sink.put(part));
    TERSOR_CHECK(after_step(part.size()));
    bytes = bytes.subspan(part.size());
  }
  return {};
}

/// Matrix frames have no pieces that are whole rows of the original: all of it at once.
status unpack_matrix(const context& ctx, std::span<const std::byte> matrix, const container_item& item,
                     byte_sink& sink, const step_hook& after_step) {
  const std::uint64_t n_bytes = item.original_bytes();
  TERSOR_TRY(const std::span<std::byte> to, sink.room(n_bytes));
  TERSOR_CHECK(unpack_into(ctx, matrix, to));
  TERSOR_CHECK(sink.take(n_bytes));
  return after_step(n_bytes);
}

result<std::optional<coded_info>> read_item(const context& ctx, const container& from,
                                            const container_item& item, std::vector<std::byte>& scratch,
                                            byte_sink& sink, const step_hook& after_step) {
  TERSOR_TRY(const std::span<const std::byte> bytes, from.file.view(item.at, item.n_bytes, scratch));
  if (!item.coded) {
    TERSOR_CHECK(copy_steps(ctx, bytes, item, sink, after_step));
    return std::nullopt;
  }
  TERSOR_TRY(coded_info info, check_coded(item, bytes));
  if (info.matrix) {
    TERSOR_CHECK(unpack_matrix(ctx, bytes, item, sink, after_step));
  } else {
    TERSOR_CHECK(decode_steps(ctx, bytes, info.frame, sink, after_step));
  }
  return info;
}

result<coded_info> check_matrix(const container_item& item, std::span<const std::byte> matrix) {
  TERSOR_TRY(const matrix_info info, inspect_packed(matrix));
  if (info.n_bytes != matrix.size() || to_string(info.type) != item.original.dtype ||
      item.original.shape != std::vector{info.rows, info.cols}) {
    return fail_at(errc::malformed,
                   "the matrix frame does not hold the dtype and shape of the original's header", 0);
  }
  if (info.digest != item.digest) {
    return fail_at(errc::digest_mismatch, "the matrix frame is not the one in the digest list",
                   8 * codec_detail::kWordHeaderDigest);
  }
  return coded_info{.matrix = info};
}

result<coded_info> check_frame(const container_item& item, std::span<const std::byte> frame) {
  TERSOR_TRY(frame_info info, inspect(frame));
  const bool flat = item.original.shape.size() > format::kMaxDims;
  if (info.frame_bytes != frame.size() || info.decoded_bytes != item.original_bytes() ||
      to_string(info.type) != item.original.dtype || (!flat && info.shape != item.original.shape) ||
      (flat && info.shape != std::vector{info.n_values})) {
    return fail_at(errc::malformed, "the frame does not hold the dtype and shape of the original's header",
                   0);
  }
  if (info.digest != item.digest) {
    return fail_at(errc::digest_mismatch, "the frame is not the one in the digest list",
                   format::kHeaderDigestOffset);
  }
  return coded_info{.frame = std::move(info)};
}

}  // namespace

result<coded_info> check_coded(const container_item& item, std::span<const std::byte> bytes) {
  return codec_detail::is_matrix_frame(bytes) ? check_matrix(item, bytes) : check_frame(item, bytes);
}

result<std::optional<coded_info>> read_tensor(const context& ctx, const container& from,
                                              const container_item& item, std::vector<std::byte>& scratch,
                                              byte_sink& sink, const step_hook& after_step) {
  // Errors of the file and of the sink name a file; those of a frame do not yet, and count from its start.
  auto read = read_item(ctx, from, item, scratch, sink, after_step);
  from.file.drop(item.at, item.n_bytes);
  if (read) return read;
  error e = std::move(read).error();
  if (e.file.empty() && e.code != errc::cancelled) {
    e.file = from.file.path().string();
    e.byte_offset = item.at + e.byte_offset.value_or(0);
  }
  e.tensor = item.original.name;
  return tl::unexpected<error>(std::move(e));
}

}  // namespace tersor::model_detail
