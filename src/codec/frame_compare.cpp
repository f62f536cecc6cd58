// Digests of bytes that were decoded before, compared with those of their frame.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "codec/first_error.hpp"
#include "codec/frame_codec.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

struct geometry {
  std::uint32_t value_bytes;
  std::uint64_t chunk_bytes;
};

geometry geometry_of(const open_frame& frame) noexcept {
  if (frame.codec == codec::raw) return {.value_bytes = 2, .chunk_bytes = kRawChunkBytes};
  const std::uint32_t value_bytes = find_planes(frame.type)->value_bytes;
  return {.value_bytes = value_bytes, .chunk_bytes = std::uint64_t{kTileValues} * kChunkTiles * value_bytes};
}

/// The last tile of a tensor may be short: the digest takes it as padded with zeros.
std::uint64_t chunk_digest(const tile_ops& ops, const geometry& g, std::span<const std::uint8_t> bytes,
                           std::uint64_t first_tile) noexcept {
  alignas(64) std::array<std::uint8_t, kTileValues * kMaxValueBytes> staged;
  const std::size_t tile_bytes = std::size_t{kTileValues} * g.value_bytes;
  std::uint64_t digest = 0;
  for (std::uint64_t tile = first_tile; !bytes.empty(); ++tile) {
    const auto part = bytes.first(std::min(bytes.size(), tile_bytes));
    const std::uint8_t* from = part.data();
    if (part.size() < tile_bytes) {
      memset(staged.data(), 0, tile_bytes);
      memcpy(staged.data(), part.data(), part.size());
      from = staged.data();
    }
    nh_sums sums;
    ops.nh(from, g.value_bytes, sums);
    digest += tile_hash(sums, digest_domain::data, tile);
    bytes = bytes.subspan(part.size());
  }
  return digest;
}

}  // namespace

status compare_chunks(const engine& e, const open_frame& frame, const std::uint8_t* decoded) {
  constexpr std::uint64_t kGroupChunks = 16;
  const geometry g = geometry_of(frame);
  const std::uint64_t n_chunks = frame.layout.n_chunks;
  std::atomic<std::uint64_t> next{0};
  first_error error = {};
  const std::uint64_t groups = core::ceil_div(n_chunks, kGroupChunks);
  e.pool->run(static_cast<unsigned>(std::clamp<std::uint64_t>(groups, 1, e.pool->size())), [&](unsigned) {
    for (std::uint64_t group = next++; group < groups; group = next++) {
      const std::uint64_t end = std::min(n_chunks, (group + 1) * kGroupChunks);
      for (std::uint64_t chunk = group * kGroupChunks; chunk < end && !error.is_past(chunk); ++chunk) {
        const std::uint64_t at = chunk * g.chunk_bytes;
        const std::span<const std::uint8_t> bytes(decoded + at,
                                                  std::min(g.chunk_bytes, frame.decoded_bytes - at));
        const std::uint8_t* record = frame.base + frame.layout.index + chunk * frame.layout.record_bytes;
        // Coded and raw records alike begin with the digest.
        if (chunk_digest(*e.ops, g, bytes, chunk * kChunkTiles) != core::load_le<std::uint64_t>(record)) {
          error.note(chunk, errc::digest_mismatch, "the memory does not hold what was decoded into it");
        }
      }
    }
  });
  return error.to_status();
}

}  // namespace tersor::codec_detail
