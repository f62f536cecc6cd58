#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "codec/chunk_planes.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

/// Chunks that one worker codes before it places their tails.
constexpr std::uint64_t kGroupChunks = 16;
/// Outputs at least this large bypass the caches.
constexpr std::uint64_t kStreamBytes = std::uint64_t{4} << 20;

/// Everything the workers of one encode share.
struct encode_job {
  const tile_ops* ops;
  const dtype_planes* planes;
  coding code;
  std::size_t dtype_slot;
  std::size_t codec_slot;
  std::span<const std::uint8_t> src;
  std::uint64_t n_values;
  std::uint8_t* dst;
  format::frame_layout layout;
  bool stream;

  std::atomic<std::uint64_t> next_group{0};
  /// Group whose tails are placed next, and where.
  std::atomic<std::uint64_t> placed_group{0};
  std::uint64_t placed_words = 0;
};

/// Codes one tile; its tail goes to `tail`. Returns its word count and notes flags in `record`.
std::uint32_t encode_tile(const encode_job& job, std::uint64_t tile, std::uint32_t t, std::uint8_t* tail,
                          format::chunk_record& record) {
  alignas(64) std::array<std::uint8_t, kTileValues> symbols;
  alignas(64) std::array<std::uint8_t, kTileValues * kMaxValueBytes> staged;
  const std::uint64_t tile_bytes = std::uint64_t{kTileValues} * job.planes->value_bytes;
  const std::uint8_t* values = job.src.data() + tile * tile_bytes;
  const std::uint64_t left = job.n_values - tile * kTileValues;
  const bool partial = left < kTileValues;
  if (partial) {
    const std::uint64_t bytes = left * job.planes->value_bytes;
    memcpy(staged.data(), values, bytes);
    memset(staged.data() + bytes, 0, tile_bytes - bytes);
    values = staged.data();
  }
  const auto place = place_of(job.dst, job.layout, *job.planes, job.code.plan, tile);
  nh_sums sums;
  job.ops->split[job.dtype_slot](values, place.rest, symbols.data(), sums, job.stream);
  record.digest += tile_hash(sums, digest_domain::data, tile);
  // Padding is code 0 in a coded tile and symbol 0 in a raw one.
  const auto pad = [&](std::uint8_t symbol) {
    if (partial) std::fill(symbols.begin() + static_cast<std::ptrdiff_t>(left), symbols.end(), symbol);
  };
  pad(job.code.book.symbols[0]);
  const coded_tile coded = job.ops->encode[job.codec_slot](job.code, symbols.data(), place.code_plane, tail);
  if (coded.words != kTileNotCoded) {
    if (coded.escapes) record.escapes = static_cast<std::uint8_t>(record.escapes | (1u << t));
    return coded.words;
  }
  pad(0);
  encode_raw_tile(job.code.plan, symbols.data(), place.code_plane, tail);
  record.raw = static_cast<std::uint8_t>(record.raw | (1u << t));
  return job.code.plan.raw_words();
}

/// Codes a chunk of full tiles in one go; returns its words.
std::uint32_t encode_chunk_run(const encode_job& job, std::uint64_t chunk, tile_ops::encode_run_fn encode_run,
                               std::uint8_t* tails, format::chunk_record& record) {
  const std::uint64_t tile = chunk * kChunkTiles;
  const auto place = place_of(job.dst, job.layout, *job.planes, job.code.plan, tile);
  const std::uint8_t* values = job.src.data() + tile * kTileValues * job.planes->value_bytes;
  tile_run run;
  run.n_tiles = kChunkTiles;
  const std::uint32_t words =
      encode_run(job.code, values, place.rest, place.code_plane, tails, run, job.stream);
  record.escapes = run.escapes;
  record.raw = run.raw;
  for (std::uint32_t t = 0; t < kChunkTiles; ++t) {
    record.words[t] = run.words[t];
    record.digest += tile_hash(run.sums[t], digest_domain::data, tile + t);
  }
  return words;
}

/// Codes a group of chunks: planes straight to the frame, tails to `tails`; returns the tails' words.
std::uint64_t encode_group(const encode_job& job, std::uint64_t group, std::uint8_t* tails,
                           std::array<format::chunk_record, kGroupChunks>& records) {
  const auto encode_run = job.ops->encode_run[job.codec_slot][job.dtype_slot];
  std::uint64_t words = 0;
  for (std::uint64_t i = 0; i < kGroupChunks; ++i) {
    const std::uint64_t chunk = group * kGroupChunks + i;
    if (chunk >= job.layout.n_chunks) break;
    format::chunk_record& record = records[i];
    record = {};
    record.first_word = words;
    if (encode_run != nullptr && (chunk + 1) * kChunkValues <= job.n_values) {
      words += encode_chunk_run(job, chunk, encode_run, tails + words * 4, record);
      continue;
    }
    for (std::uint32_t t = 0; t < kChunkTiles; ++t) {
      const std::uint64_t tile = chunk * kChunkTiles + t;
      if (tile >= job.layout.n_tiles) break;
      const std::uint32_t n = encode_tile(job, tile, t, tails + words * 4, record);
      record.words[t] = static_cast<std::uint8_t>(n);
      words += n;
    }
  }
  return words;
}

/// Puts a group's tails behind those of all earlier groups and writes its records. Groups are taken in order,
/// so the one waited for is always at work.
void place_group(encode_job& job, std::uint64_t group, const std::uint8_t* tails, std::uint64_t words,
                 std::array<format::chunk_record, kGroupChunks>& records) {
  while (job.placed_group.load(std::memory_order_acquire) != group) std::this_thread::yield();
  const std::uint64_t first = job.placed_words;
  job.placed_words += words;
  job.placed_group.store(group + 1, std::memory_order_release);
  memcpy(job.dst + job.layout.tails + first * 4, tails, words * 4);
  for (std::uint64_t i = 0; i < kGroupChunks; ++i) {
    const std::uint64_t chunk = group * kGroupChunks + i;
    if (chunk >= job.layout.n_chunks) break;
    records[i].first_word += first;
    format::write_chunk_record(records[i], job.dst + job.layout.index + chunk * format::kChunkRecordBytes);
  }
}

void encode_worker(encode_job& job, std::uint64_t n_groups, std::uint8_t* tails) {
  std::array<format::chunk_record, kGroupChunks> records;
  while (true) {
    const std::uint64_t group = job.next_group.fetch_add(1, std::memory_order_relaxed);
    if (group >= n_groups) break;
    const std::uint64_t words = encode_group(job, group, tails, records);
    place_group(job, group, tails, words, records);
  }
  job.ops->finish();
}

void set_shape(format::frame_header& header, const tensor_view& src, std::uint64_t n_values) {
  if (src.shape.size() > format::kMaxDims) {
    header.n_dims = 1;
    header.shape[0] = n_values;
    return;
  }
  header.n_dims = static_cast<std::uint8_t>(src.shape.size());
  std::ranges::copy(src.shape, header.shape.begin());
}

void zero_between(std::uint8_t* frame, std::uint64_t from, std::uint64_t to) {
  memset(frame + from, 0, to - from);
}

/// Index digest, header and header digest of a frame whose sections are complete.
void seal(format::frame_header& header, const format::frame_layout& layout, std::uint8_t* frame) {
  header.index_digest = index_digest_of({frame + layout.index, layout.index_bytes}, layout.record_bytes);
  const std::span<std::uint8_t, format::kFrameHeaderBytes> head(frame, format::kFrameHeaderBytes);
  format::write_frame_header(header, head);
  header.header_digest = header_digest_of(head);
  format::write_frame_header(header, head);
}

}  // namespace

result<std::uint64_t> encode_coded(const engine& e, codec c, const tensor_view& src, const codebook& book,
                                   std::span<std::uint8_t> dst) {
  const dtype_planes* planes = find_planes(src.type);
  const level_plan plan = make_plan(c, planes->symbol_bits);
  codebook used = book;
  std::fill(used.symbols.begin() + plan.n_entries, used.symbols.end(), std::uint8_t{0});
  if (!is_valid_book(plan, used)) {
    return fail(errc::invalid_argument, "codebook entries repeat or leave the dtype's symbol width");
  }
  const std::uint64_t n_values = src.data.size() / planes->value_bytes;
  const auto layout = format::make_layout(plane_sizes_of(c, src.type, n_values), n_values, 0);
  if (!layout) return fail(errc::size_overflow, "tensor size leaves 64 bits");

  encode_job job{.ops = e.ops,
                 .planes = planes,
                 .code = make_coding(plan, used),
                 .dtype_slot = static_cast<std::size_t>(src.type) - 1,
                 .codec_slot = static_cast<std::size_t>(c) - 1,
                 .src = {reinterpret_cast<const std::uint8_t*>(src.data.data()), src.data.size()},
                 .n_values = n_values,
                 .dst = dst.data(),
                 .layout = *layout,
                 .stream = src.data.size() >= kStreamBytes};
  const std::uint64_t n_groups = core::ceil_div(layout->n_chunks, kGroupChunks);
  const auto n_workers = static_cast<unsigned>(std::clamp<std::uint64_t>(n_groups, 1, e.pool->size()));
  const std::uint64_t tails_bytes = kGroupChunks * kChunkTiles * plan.raw_words() * 4 + kTailScratchBytes;
  const auto tails = std::make_unique_for_overwrite<std::uint8_t[]>(n_workers * tails_bytes);
  e.pool->run(n_workers,
              [&](unsigned worker) { encode_worker(job, n_groups, tails.get() + worker * tails_bytes); });

  format::frame_header header;
  header.codec = static_cast<std::uint8_t>(c);
  header.dtype = static_cast<std::uint8_t>(src.type);
  header.level_widths = pack_widths(plan);
  header.n_values = n_values;
  header.tail_words = job.placed_words;
  header.codebook = used.symbols;
  set_shape(header, src, n_values);
  const auto final_layout =
      format::make_layout(plane_sizes_of(c, src.type, n_values), n_values, header.tail_words);
  if (!final_layout) return fail(errc::size_overflow, "tensor size leaves 64 bits");
  const std::uint64_t index_end = final_layout->index + final_layout->index_bytes;
  zero_between(dst.data(), index_end, core::align_up(index_end, format::kSectionAlignment));
  zero_between(dst.data(), final_layout->tails_end, final_layout->frame_bytes);
  seal(header, *final_layout, dst.data());
  return final_layout->frame_bytes;
}

result<std::uint64_t> encode_raw(const engine& e, const tensor_view& src, std::span<std::uint8_t> dst) {
  const std::uint64_t n_values = src.data.size() / value_bytes(src.type);
  const auto layout = format::make_layout(plane_sizes_of(codec::raw, src.type, n_values), n_values, 0);
  if (!layout) return fail(errc::size_overflow, "tensor size leaves 64 bits");
  const std::span<const std::uint8_t> bytes(reinterpret_cast<const std::uint8_t*>(src.data.data()),
                                            src.data.size());
  std::atomic<std::uint64_t> next{0};
  e.pool->run(
      static_cast<unsigned>(std::clamp<std::uint64_t>(layout->n_chunks, 1, e.pool->size())), [&](unsigned) {
        for (std::uint64_t chunk = next++; chunk < layout->n_chunks; chunk = next++) {
          const std::uint64_t at = chunk * kRawChunkBytes;
          const auto part = bytes.subspan(at, std::min<std::uint64_t>(kRawChunkBytes, bytes.size() - at));
          memcpy(dst.data() + layout->tails + at, part.data(), part.size());
          const std::uint64_t digest = digest_of(*e.ops, part, digest_domain::data, chunk * kChunkTiles);
          core::store_le<std::uint64_t>(dst.data() + layout->index + chunk * format::kRawRecordBytes, digest);
        }
      });
  format::frame_header header;
  header.codec = static_cast<std::uint8_t>(codec::raw);
  header.dtype = static_cast<std::uint8_t>(src.type);
  header.n_values = n_values;
  set_shape(header, src, n_values);
  const std::uint64_t index_end = layout->index + layout->index_bytes;
  zero_between(dst.data(), index_end, core::align_up(index_end, format::kSectionAlignment));
  zero_between(dst.data(), layout->tails_end, layout->frame_bytes);
  seal(header, *layout, dst.data());
  return layout->frame_bytes;
}

histogram count_all(const engine& e, dtype type, std::span<const std::uint8_t> data) {
  constexpr std::uint64_t kPartValues = std::uint64_t{1} << 20;
  const dtype_planes* planes = find_planes(type);
  const auto slot = static_cast<std::size_t>(type) - 1;
  const std::uint64_t n_values = data.size() / planes->value_bytes;
  const std::uint64_t n_parts = core::ceil_div(n_values, kPartValues);
  std::atomic<std::uint64_t> next{0};
  const auto n_workers = static_cast<unsigned>(std::clamp<std::uint64_t>(n_parts, 1, e.pool->size()));
  std::vector<histogram> counts(n_workers);
  e.pool->run(n_workers, [&](unsigned worker) {
    for (std::uint64_t part = next++; part < n_parts; part = next++) {
      const std::uint64_t first = part * kPartValues;
      e.ops->count[slot](data.data() + first * planes->value_bytes, std::min(kPartValues, n_values - first),
                         counts[worker].counts.data());
    }
  });
  histogram total;
  for (const histogram& part : counts) total += part;
  return total;
}

}  // namespace tersor::codec_detail
