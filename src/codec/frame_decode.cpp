#include <algorithm>
#include <atomic>
#include <cstring>

#include "codec/chunk_planes.hpp"
#include "codec/first_error.hpp"
#include "codec/lanes.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

constexpr std::uint64_t kGroupChunks = 16;
constexpr std::uint64_t kStreamBytes = std::uint64_t{4} << 20;

/// True if all planes of a tile are zero where its values past `n_values` would lie. The code is looked at,
/// not only the symbol: an escape can name the symbol that code 0 has.
bool padding_is_zero(const tile_place<const std::uint8_t>& place, const dtype_planes& planes,
                     std::uint32_t code_width, const std::uint8_t* symbols, bool raw,
                     std::uint32_t n_values) {
  for (std::uint32_t i = n_values; i < kTileValues; ++i) {
    if (get_field(place.code_plane, code_width, lane_order(i)) != 0) return false;
    if (raw && symbols[i] != 0) return false;
    for (std::size_t b = 0; b < planes.byte_planes; ++b) {
      if (place.rest.bytes[b][i] != 0) return false;
    }
    for (std::size_t f = 0; f < planes.field_widths.size(); ++f) {
      const std::uint32_t width = planes.field_widths[f];
      if (width != 0 && get_field(place.rest.fields[f], width, lane_order(i)) != 0) return false;
    }
  }
  return true;
}

struct decode_job {
  const tile_ops* ops;
  const open_frame* frame;
  const dtype_planes* planes;
  std::size_t dtype_slot;
  std::size_t codec_slot;
  std::uint64_t first_chunk;
  std::uint64_t end_chunk;
  std::uint8_t* dst;  ///< where chunk first_chunk goes
  bool stream;
  std::atomic<std::uint64_t> next_group = 0;
  first_error error = {};
};

/// Decodes one tile to `dst`; false if its bits contradict the format. Adds its hash to `digest`.
bool decode_tile(const decode_job& job, std::uint64_t tile, const std::uint8_t* tail, std::uint32_t words,
                 bool raw, bool escapes, std::uint8_t* dst, std::uint64_t& digest) {
  alignas(64) std::array<std::uint8_t, kTileValues> symbols;
  alignas(64) std::array<std::uint8_t, kTileValues * kMaxValueBytes> staged;
  const open_frame& frame = *job.frame;
  const auto place = place_of(frame.base, frame.layout, *job.planes, frame.code.plan, tile);
  if (raw) {
    decode_raw_tile(frame.code.plan, place.code_plane, tail, symbols.data());
  } else {
    alignas(64) std::array<std::uint8_t, kMaxRawWords * 4 + kTailReadSlack> safe;
    const std::uint8_t* frame_end = frame.base + frame.layout.frame_bytes;
    if (static_cast<std::uint64_t>(frame_end - tail) < words * 4 + kTailReadSlack) {
      memcpy(safe.data(), tail, words * 4);
      memset(safe.data() + words * 4, 0, kTailReadSlack);
      tail = safe.data();
    }
    if (!job.ops->decode[job.codec_slot](frame.code, place.code_plane, tail, words, escapes,
                                         symbols.data())) {
      return false;
    }
  }
  const std::uint64_t left = frame.header.n_values - tile * kTileValues;
  nh_sums sums;
  if (left >= kTileValues) {
    job.ops->join[job.dtype_slot](place.rest, symbols.data(), dst, sums, job.stream);
  } else {
    const auto n = static_cast<std::uint32_t>(left);
    if (!padding_is_zero(place, *job.planes, frame.code.plan.widths[0], symbols.data(), raw, n)) {
      return false;
    }
    const std::size_t bytes = n * job.planes->value_bytes;
    job.ops->join[job.dtype_slot](place.rest, symbols.data(), staged.data(), sums, false);
    memset(staged.data() + bytes, 0, std::size_t{kTileValues} * job.planes->value_bytes - bytes);
    job.ops->nh(staged.data(), job.planes->value_bytes, sums);
    memcpy(dst, staged.data(), bytes);
  }
  digest += tile_hash(sums, digest_domain::data, tile);
  return true;
}

/// Decodes a chunk of full tiles in one go; false if its bits contradict the format. Adds its hashes to
/// `digest`.
bool decode_chunk_run(const decode_job& job, std::uint64_t chunk, const format::chunk_record& record,
                      tile_ops::decode_run_fn decode_run, const std::uint8_t* tails, std::uint8_t* dst,
                      std::uint64_t& digest) {
  const open_frame& frame = *job.frame;
  const std::uint64_t tile = chunk * kChunkTiles;
  const auto place = place_of(frame.base, frame.layout, *job.planes, frame.code.plan, tile);
  tile_run run;
  run.n_tiles = kChunkTiles;
  run.escapes = record.escapes;
  run.raw = record.raw;
  std::copy_n(std::begin(record.words), kChunkTiles, run.words.begin());
  if (!decode_run(frame.code, place.rest, place.code_plane, tails, dst, run, job.stream)) return false;
  for (std::uint32_t t = 0; t < kChunkTiles; ++t)
    digest += tile_hash(run.sums[t], digest_domain::data, tile + t);
  return true;
}

/// True if the chunk's tiles are full and its tails lie far enough from the frame's end for decode_run.
bool fits_run(const open_frame& frame, std::uint64_t chunk, const format::chunk_record& record,
              const std::uint8_t* tails) {
  const auto left = static_cast<std::uint64_t>(frame.base + frame.layout.frame_bytes - tails);
  return (chunk + 1) * kChunkValues <= frame.header.n_values &&
         record.total_words() * 4 + kTailReadSlack <= left;
}

void decode_chunk(decode_job& job, std::uint64_t chunk) {
  const open_frame& frame = *job.frame;
  const format::chunk_record record =
      format::read_chunk_record(frame.base + frame.layout.index + chunk * format::kChunkRecordBytes);
  const std::uint64_t tile_bytes = std::uint64_t{kTileValues} * job.planes->value_bytes;
  const std::uint8_t* tail = frame.base + frame.layout.tails + record.first_word * 4;
  std::uint64_t digest = 0;
  constexpr const char* kMalformed = "a tile's tail contradicts its codes";
  const auto decode_run = job.ops->decode_run[job.codec_slot][job.dtype_slot];
  const bool in_one_run = decode_run != nullptr && fits_run(frame, chunk, record, tail);
  if (in_one_run) {
    std::uint8_t* dst = job.dst + (chunk - job.first_chunk) * kChunkTiles * tile_bytes;
    if (!decode_chunk_run(job, chunk, record, decode_run, tail, dst, digest)) {
      job.error.note(chunk, errc::malformed, kMalformed);
      return;
    }
  }
  for (std::uint32_t t = 0; t < kChunkTiles && !in_one_run; ++t) {
    const std::uint64_t tile = chunk * kChunkTiles + t;
    if (tile >= frame.layout.n_tiles) break;
    std::uint8_t* dst = job.dst + (tile - job.first_chunk * kChunkTiles) * tile_bytes;
    if (!decode_tile(job, tile, tail, record.words[t], ((record.raw >> t) & 1) != 0,
                     ((record.escapes >> t) & 1) != 0, dst, digest)) {
      job.error.note(chunk, errc::malformed, kMalformed);
      return;
    }
    tail += record.words[t] * 4;
  }
  if (digest != record.digest) job.error.note(chunk, errc::digest_mismatch, "chunk digest differs");
}

status decode_coded(const engine& e, const open_frame& frame, std::uint64_t first, std::uint64_t count,
                    std::uint8_t* dst) {
  decode_job job{.ops = e.ops,
                 .frame = &frame,
                 .planes = find_planes(frame.type),
                 .dtype_slot = static_cast<std::size_t>(frame.type) - 1,
                 .codec_slot = static_cast<std::size_t>(frame.codec) - 1,
                 .first_chunk = first,
                 .end_chunk = first + count,
                 .dst = dst,
                 .stream = count * kChunkValues * value_bytes(frame.type) >= kStreamBytes};
  const std::uint64_t n_groups = core::ceil_div(count, kGroupChunks);
  e.pool->run(static_cast<unsigned>(std::clamp<std::uint64_t>(n_groups, 1, e.pool->size())), [&](unsigned) {
    while (true) {
      const std::uint64_t chunk0 =
          first + job.next_group.fetch_add(1, std::memory_order_relaxed) * kGroupChunks;
      if (chunk0 >= job.end_chunk) break;
      const std::uint64_t end = std::min(job.end_chunk, chunk0 + kGroupChunks);
      for (std::uint64_t chunk = chunk0; chunk < end && !job.error.is_past(chunk); ++chunk)
        decode_chunk(job, chunk);
    }
    job.ops->finish();
  });
  return job.error.to_status();
}

status decode_raw(const engine& e, const open_frame& frame, std::uint64_t first, std::uint64_t count,
                  std::uint8_t* dst) {
  std::atomic<std::uint64_t> next{first};
  first_error error = {};
  const std::uint64_t end = first + count;
  const std::span<const std::uint8_t> payload(frame.base + frame.layout.tails, frame.decoded_bytes);
  e.pool->run(static_cast<unsigned>(std::clamp<std::uint64_t>(count, 1, e.pool->size())), [&](unsigned) {
    for (std::uint64_t chunk = next++; chunk < end && !error.is_past(chunk); chunk = next++) {
      const std::uint64_t at = chunk * kRawChunkBytes;
      const auto part = payload.subspan(at, std::min<std::uint64_t>(kRawChunkBytes, payload.size() - at));
      std::uint8_t* out = dst + (chunk - first) * kRawChunkBytes;
      memcpy(out, part.data(), part.size());
      const std::uint64_t digest =
          digest_of(*e.ops, {out, part.size()}, digest_domain::data, chunk * kChunkTiles);
      const std::uint8_t* record = frame.base + frame.layout.index + chunk * format::kRawRecordBytes;
      if (digest != core::load_le<std::uint64_t>(record)) {
        error.note(chunk, errc::digest_mismatch, "chunk digest differs");
      }
    }
  });
  return error.to_status();
}

}  // namespace

status decode_range(const engine& e, const open_frame& frame, std::uint64_t first, std::uint64_t count,
                    std::uint8_t* dst) {
  return frame.codec == codec::raw ? decode_raw(e, frame, first, count, dst)
                                   : decode_coded(e, frame, first, count, dst);
}

}  // namespace tersor::codec_detail
