// Packs a matrix into the `tcatbe` layout: exponents are counted for the window, coded values for the places
// of the streams, then every tile is written where it belongs.
#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <string>

#include "codec/tcatbe.hpp"
#include "codec/tcatbe_tile.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

using geometry = tcatbe_geometry;
using matrix = matrix_place<const std::uint8_t>;
using exponent_counts = std::array<std::uint64_t, 256>;

/// Tiles, or pieces of lines, that a worker takes at a time.
constexpr std::uint64_t kGroupTiles = 16;
constexpr std::uint64_t kPieceValues = std::uint64_t{1} << 16;

/// Calls `work(first, end)` on groups of `n` items with all workers of the pool.
template <class Work>
void for_groups(core::thread_pool& pool, std::uint64_t n, std::uint64_t group, const Work& work) {
  std::atomic<std::uint64_t> next{0};
  const std::uint64_t n_groups = core::ceil_div(n, group);
  pool.run(static_cast<unsigned>(std::clamp<std::uint64_t>(n_groups, 1, pool.size())), [&](unsigned) {
    while (true) {
      const std::uint64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= n_groups) break;
      work(i * group, std::min(n, (i + 1) * group));
    }
  });
}

// ---- counting ----

/// Neighbours often have the same exponent, so they are counted in different tables.
struct count_tables {
  std::array<std::array<std::uint32_t, 256>, 4> tables = {};

  void add(const std::uint8_t* values, std::uint64_t n) noexcept {
    std::uint64_t i = 0;
    for (; i + 4 <= n; i += 4) {
      const auto four = core::load_le<std::uint64_t>(values + 2 * i);
      ++tables[0][four >> 7 & 0xff];
      ++tables[1][four >> 23 & 0xff];
      ++tables[2][four >> 39 & 0xff];
      ++tables[3][four >> 55 & 0xff];
    }
    for (; i < n; ++i) ++tables[0][core::load_le<std::uint16_t>(values + 2 * i) >> 7 & 0xff];
  }
};

exponent_counts count_exponents(core::thread_pool& pool, const matrix& m) {
  const std::uint64_t n_lines = m.by_rows ? m.rows : m.cols, length = m.by_rows ? m.cols : m.rows;
  const std::uint64_t pieces = core::ceil_div(length, kPieceValues);
  const std::uint64_t lines_at_once = std::max<std::uint64_t>(1, kPieceValues / length);
  exponent_counts total = {};
  std::mutex mutex;
  for_groups(pool, n_lines * pieces, lines_at_once, [&](std::uint64_t first, std::uint64_t end) {
    count_tables counts;
    for (std::uint64_t i = first; i < end; ++i) {
      const std::uint64_t at = i % pieces * kPieceValues;
      counts.add(m.data + 2 * (i / pieces * m.stride + at), std::min(kPieceValues, length - at));
    }
    const std::lock_guard lock(mutex);
    for (const auto& table : counts.tables) {
      for (std::size_t e = 0; e < table.size(); ++e) total[e] += table[e];
    }
  });
  return total;
}

/// The counts word of an index record.
std::uint64_t count_coded(const tcatbe_values& values, std::uint32_t first) noexcept {
  std::uint64_t word = 0, n = 0;
  for (std::uint32_t s = 0; s < geometry::kStrips; ++s) {
    const std::uint16_t* strip = values.data() + std::size_t{geometry::kStripValues} * s;
    // Columns apart: at most 16 of each fit into a byte, and vectors of bytes count fast.
    std::array<std::uint8_t, geometry::kSide> columns = {};
    for (std::uint32_t row = 0; row < geometry::kStripRows; ++row) {
      for (std::uint32_t col = 0; col < geometry::kSide; ++col) {
        const auto above = static_cast<std::uint8_t>((strip[row * geometry::kSide + col] >> 7) - first);
        columns[col] = static_cast<std::uint8_t>(columns[col] + (above < geometry::kCodes ? 1 : 0));
      }
    }
    std::uint32_t coded = 0;
    for (const std::uint8_t c : columns) coded += c;
    n += coded;
    word |= n << (16 * s);
  }
  return word;
}

// ---- one tile ----

/// Eight bits, one a column of an 8 x 8 tile, at their bits of a bitmap word (for its first row).
constexpr std::array<std::uint32_t, 256> make_row_bits() {
  std::array<std::uint32_t, 256> table = {};
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    for (std::uint32_t col = 0; col < 8; ++col)
      table[bits] |= (bits >> col & 1) << tcatbe_place_of(0, col).bit;
  }
  return table;
}
constexpr auto kRowBits = make_row_bits();

/// Lowest bits of eight bytes, byte i as bit i.
std::uint32_t gather_bits(std::uint64_t bytes) noexcept {
  return static_cast<std::uint32_t>((bytes & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}

/// A tile in the making. Streams have a value of slack each, so that a value can be put before it is known
/// whether it stays.
struct packed_tile {
  alignas(64) tcatbe_values values;
  alignas(64) std::array<std::uint8_t, geometry::kValues> codes, rests;
  std::array<std::uint32_t, geometry::kStrips * geometry::kStripWords> bitmaps;
  std::array<std::uint8_t, geometry::kValues + 16> coded;
  std::array<std::uint8_t, 2 * geometry::kValues + 16> escapes;
  std::uint32_t n_coded;

  void split(std::uint32_t first) noexcept {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto above = static_cast<std::uint8_t>((values[i] >> 7) - first);
      codes[i] = above < geometry::kCodes ? static_cast<std::uint8_t>(above + 1) : std::uint8_t{0};
    }
    for (std::size_t i = 0; i < values.size(); ++i)
      rests[i] = static_cast<std::uint8_t>((values[i] >> 8 & 0x80) | (values[i] & 0x7f));
  }

  /// Where the next values go. Not members: stores of bytes might change those.
  struct cursors {
    std::uint8_t* coded;
    std::uint8_t* escapes;
  };

  /// Eight values from `at` on; `coded_bits` says which of them are coded.
  cursors put_streams(std::size_t at, std::uint32_t coded_bits, cursors to) const noexcept {
    if (coded_bits == 0xff) {
      memcpy(to.coded, rests.data() + at, 8);
      to.coded += 8;
      return to;
    }
    for (std::uint32_t i = 0; i < 8; ++i) {
      const std::uint32_t is_coded = coded_bits >> i & 1;
      *to.coded = rests[at + i];
      core::store_le<std::uint16_t>(to.escapes, values[at + i]);
      to.coded += is_coded;
      to.escapes += 2 * (1 - is_coded);
    }
    return to;
  }

  cursors put_small_tile(std::uint32_t strip, std::uint32_t tile, cursors to) noexcept {
    const std::size_t corner =
        std::size_t{strip * geometry::kStripRows + tcatbe_tile_row(tile)} * geometry::kSide +
        tcatbe_tile_col(tile);
    std::uint32_t* words = bitmaps.data() + std::size_t{strip} * geometry::kStripWords;
    for (std::uint32_t word = 0; word < 2; ++word) {
      std::uint32_t planes[geometry::kPlanes] = {};
      for (std::uint32_t row = 0; row < 4; ++row) {
        const std::size_t at = corner + (4 * word + row) * std::size_t{geometry::kSide};
        const auto row_codes = core::load_le<std::uint64_t>(codes.data() + at);
        std::uint32_t coded_bits = 0;
        for (std::uint32_t k = 0; k < geometry::kPlanes; ++k) {
          const std::uint32_t bits = gather_bits(row_codes >> k);
          planes[k] |= kRowBits[bits] << (4 * row);
          coded_bits |= bits;
        }
        to = put_streams(at, coded_bits, to);
      }
      for (std::uint32_t k = 0; k < geometry::kPlanes; ++k) words[tcatbe_word(k, word, tile)] = planes[k];
    }
    return to;
  }

  void pack(std::uint32_t first) noexcept {
    split(first);
    cursors to = {coded.data(), escapes.data()};
    for (std::uint32_t s = 0; s < geometry::kStrips; ++s) {
      for (std::uint32_t t = 0; t < geometry::kSmallTiles; ++t) to = put_small_tile(s, t, to);
    }
    n_coded = static_cast<std::uint32_t>(to.coded - coded.data());
    const auto n_escape_bytes = static_cast<std::size_t>(to.escapes - escapes.data());
    memset(to.coded, 0, tcatbe_coded_bytes(n_coded) - n_coded);
    memset(to.escapes, 0, tcatbe_escape_bytes(n_coded) - n_escape_bytes);
  }
};

// ---- the matrix ----

struct pack_job {
  const matrix& src;
  tcatbe_sections sections;
  std::uint32_t first;
  std::uint8_t* dst;
  std::uint64_t escapes_at = 0;

  [[nodiscard]] std::uint8_t* record(std::uint64_t tile) const noexcept {
    return dst + sections.index_at + tile * geometry::kRecordBytes;
  }
  void load(std::uint64_t tile, tcatbe_values& values) const noexcept {
    load_tcatbe_tile(src, tcatbe_extent_of(src.rows, src.cols, sections.col_tiles, tile),
                     static_cast<std::uint16_t>(tcatbe_padding(first)), values);
  }
};

void count_tiles(const pack_job& job, std::uint64_t begin, std::uint64_t end) noexcept {
  alignas(64) tcatbe_values values;
  for (std::uint64_t tile = begin; tile < end; ++tile) {
    job.load(tile, values);
    core::store_le<std::uint64_t>(job.record(tile) + 16, count_coded(values, job.first));
  }
}

/// Writes tiles; returns their share of the content digest.
std::uint64_t write_tiles(const pack_job& job, std::uint64_t begin, std::uint64_t end) noexcept {
  packed_tile t;
  std::uint64_t content = 0;
  for (std::uint64_t tile = begin; tile < end; ++tile) {
    job.load(tile, t.values);
    t.pack(job.first);
    std::uint8_t* bitmaps = job.dst + job.sections.bitmaps_at + tile * geometry::kBitmapBytes;
    for (std::size_t i = 0; i < t.bitmaps.size(); ++i) core::store_le(bitmaps + 4 * i, t.bitmaps[i]);
    const std::uint8_t* record = job.record(tile);
    memcpy(job.dst + job.sections.coded_at + core::load_le<std::uint64_t>(record), t.coded.data(),
           tcatbe_coded_bytes(t.n_coded));
    memcpy(job.dst + job.escapes_at + core::load_le<std::uint64_t>(record + 8), t.escapes.data(),
           tcatbe_escape_bytes(t.n_coded));
    const std::uint64_t digest = tcatbe_digest(t.values, tile);
    core::store_le(job.dst + job.sections.digests_at + 8 * tile, digest);
    content += matrix_index_hash(tile, digest, core::load_le<std::uint64_t>(record + 16));
  }
  return content;
}

struct stream_sizes {
  std::uint64_t coded = 0, escapes = 0, n_escapes = 0;
};

/// Turns the counts of all tiles into places.
stream_sizes place_tiles(const pack_job& job) noexcept {
  stream_sizes size;
  for (std::uint64_t tile = 0; tile < job.sections.n_tiles; ++tile) {
    std::uint8_t* record = job.record(tile);
    const std::uint32_t n_coded =
        tcatbe_coded_up_to(core::load_le<std::uint64_t>(record + 16), geometry::kStrips - 1);
    core::store_le(record, size.coded);
    core::store_le(record + 8, size.escapes);
    size.coded += tcatbe_coded_bytes(n_coded);
    size.escapes += tcatbe_escape_bytes(n_coded);
    size.n_escapes += geometry::kValues - n_coded;
  }
  return size;
}

matrix_words header_words(const pack_job& job, const stream_sizes& size, std::uint64_t n_bytes,
                          std::uint64_t content) noexcept {
  matrix_words w = {};
  w[kWordMagic] = first_matrix_word(matrix_layout::tcatbe, dtype::bf16);
  w[kWordRows] = job.src.rows;
  w[kWordCols] = job.src.cols;
  w[kWordBytes] = n_bytes;
  w[kWordParameters] = job.first;
  w[kWordBlocksAt] = job.sections.bitmaps_at;
  w[kWordOverflowAt] = job.escapes_at;
  w[kWordOverflowCount] = size.n_escapes;
  w[kWordDigestsAt] = job.sections.digests_at;
  w[kWordContentDigest] = content;
  w[kWordTcatbeIndexAt] = job.sections.index_at;
  w[kWordTcatbeCodedAt] = job.sections.coded_at;
  w[kWordTcatbeCodedBytes] = size.coded;
  w[kWordTcatbeEscapeBytes] = size.escapes;
  return w;
}

}  // namespace

result<std::uint64_t> tcatbe_pack(core::thread_pool& pool, const matrix& src, std::span<std::uint8_t> dst) {
  const auto sections = checked_tcatbe_sections(src.rows, src.cols);
  if (!sections) return fail(errc::size_overflow, "matrix size leaves 64 bits");
  const auto too_small = [&](std::uint64_t needed) {
    return fail(errc::destination_too_small, "destination has " + std::to_string(dst.size()) + " bytes, " +
                                                 std::to_string(needed) + " are needed");
  };
  if (dst.size() < sections->coded_at) return too_small(sections->coded_at);

  pack_job job{.src = src,
               .sections = *sections,
               .first = best_tcatbe_window(count_exponents(pool, src)),
               .dst = dst.data()};
  for_groups(pool, sections->n_tiles, kGroupTiles,
             [&](std::uint64_t begin, std::uint64_t end) { count_tiles(job, begin, end); });
  const stream_sizes size = place_tiles(job);
  const std::uint64_t coded_end = sections->coded_at + size.coded;
  job.escapes_at = core::align_up(coded_end, geometry::kSectionAlignment);
  const std::uint64_t escapes_end = job.escapes_at + size.escapes;
  const std::uint64_t n_bytes = core::align_up(escapes_end, geometry::kSectionAlignment);
  if (dst.size() < n_bytes) return too_small(n_bytes);

  std::atomic<std::uint64_t> content{0};
  for_groups(pool, sections->n_tiles, kGroupTiles, [&](std::uint64_t begin, std::uint64_t end) {
    content.fetch_add(write_tiles(job, begin, end), std::memory_order_relaxed);
  });
  const auto clear = [&](std::uint64_t from, std::uint64_t to) { memset(dst.data() + from, 0, to - from); };
  clear(sections->index_at + sections->n_tiles * geometry::kRecordBytes, sections->digests_at);
  clear(sections->digests_at + sections->n_tiles * 8, sections->coded_at);
  clear(coded_end, job.escapes_at);
  clear(escapes_end, n_bytes);
  matrix_words words = header_words(job, size, n_bytes, content.load());
  seal_matrix(words, dst.data());
  return n_bytes;
}

}  // namespace tersor::codec_detail
