// Unpacks a matrix of the `tcatbe` layout. Nothing of it is trusted: the index is checked before anything is
// read through it, and the bitmaps against the index.
#include <algorithm>
#include <array>
#include <atomic>

#include "codec/first_error.hpp"
#include "codec/tcatbe.hpp"
#include "codec/tcatbe_tile.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

using geometry = tcatbe_geometry;

/// Tiles that a worker takes at a time.
constexpr std::uint64_t kGroupTiles = 16;

struct unpack_job {
  const matrix_info& info;
  tcatbe_sections sections;
  const std::uint8_t* base;
  const matrix_place<std::uint8_t>& dst;

  [[nodiscard]] std::uint64_t record(std::uint64_t tile, std::uint32_t word) const noexcept {
    return core::load_le<std::uint64_t>(base + sections.index_at + tile * geometry::kRecordBytes + 8 * word);
  }
  [[nodiscard]] std::uint64_t digest(std::uint64_t tile) const noexcept {
    return core::load_le<std::uint64_t>(base + sections.digests_at + 8 * tile);
  }
};

bool is_zero(const std::uint8_t* bytes, std::uint64_t n) noexcept {
  return std::all_of(bytes, bytes + n, [](std::uint8_t b) { return b == 0; });
}

/// Whether each strip may have that many coded values.
bool is_possible(std::uint64_t counts) noexcept {
  std::uint32_t before = 0;
  for (std::uint32_t s = 0; s < geometry::kStrips; ++s) {
    const std::uint32_t up_to = tcatbe_coded_up_to(counts, s);
    if (up_to < before || up_to - before > geometry::kStripValues) return false;
    before = up_to;
  }
  return true;
}

/// Every tile's streams begin where those of the tile before end, and all end where the header says.
status check_index(const unpack_job& job, const matrix_words& w) {
  std::uint64_t coded = 0, escapes = 0, n_escapes = 0, content = 0;
  const auto wrong = [&](errc code, const char* message, std::uint64_t tile) {
    auto e = fail(code, message);
    e.value().chunk = tile;
    return e;
  };
  for (std::uint64_t tile = 0; tile < job.sections.n_tiles; ++tile) {
    const std::uint64_t counts = job.record(tile, 2);
    if (job.record(tile, 0) != coded || job.record(tile, 1) != escapes || !is_possible(counts))
      return wrong(errc::malformed, "an index record contradicts the records before it", tile);
    const std::uint32_t n_coded = tcatbe_coded_up_to(counts, geometry::kStrips - 1);
    coded += tcatbe_coded_bytes(n_coded);
    escapes += tcatbe_escape_bytes(n_coded);
    n_escapes += geometry::kValues - n_coded;
    if (coded > w[kWordTcatbeCodedBytes] || escapes > w[kWordTcatbeEscapeBytes])
      return wrong(errc::malformed, "a tile leaves its section", tile);
    content += matrix_index_hash(tile, job.digest(tile), counts);
  }
  if (coded != w[kWordTcatbeCodedBytes] || escapes != w[kWordTcatbeEscapeBytes] ||
      n_escapes != w[kWordOverflowCount]) {
    return fail_at(errc::malformed, "the index and the header disagree", 8 * kWordTcatbeCodedBytes);
  }
  if (content != w[kWordContentDigest])
    return fail_at(errc::digest_mismatch, "matrix content digest differs", 8 * kWordContentDigest);
  return {};
}

status check_gaps(const unpack_job& job, const matrix_words& w) {
  const auto gap = [&](std::uint64_t from, std::uint64_t to) -> status {
    if (is_zero(job.base + from, to - from)) return {};
    return fail_at(errc::malformed, "bytes between two sections are not zero", from);
  };
  const tcatbe_sections& s = job.sections;
  TERSOR_CHECK(gap(s.index_at + s.n_tiles * geometry::kRecordBytes, s.digests_at));
  TERSOR_CHECK(gap(s.digests_at + s.n_tiles * 8, s.coded_at));
  TERSOR_CHECK(gap(s.coded_at + w[kWordTcatbeCodedBytes], job.info.overflow_at));
  TERSOR_CHECK(gap(job.info.overflow_at + w[kWordTcatbeEscapeBytes], job.info.n_bytes));
  return {};
}

// ---- one tile ----

/// A row's eight bits of a bitmap word, as 4 even and 4 odd columns, as the lowest bits of eight bytes.
constexpr std::array<std::uint64_t, 256> make_row_bytes() {
  std::array<std::uint64_t, 256> table = {};
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    for (std::uint32_t i = 0; i < 8; ++i)
      table[bits] |= static_cast<std::uint64_t>(bits >> i & 1) << (8 * (i % 4 * 2 + i / 4));
  }
  return table;
}
constexpr auto kRowBytes = make_row_bytes();

struct unpacked_tile {
  alignas(64) tcatbe_values values;
  alignas(64) std::array<std::uint8_t, geometry::kValues> codes, rests;
  std::array<std::uint32_t, geometry::kStrips * geometry::kStripWords> bitmaps;
  std::array<std::uint8_t, geometry::kValues + 16> coded;
  std::array<std::uint16_t, geometry::kValues + 1> escaped;  ///< places of the escapes

  void load_bitmaps(const std::uint8_t* bytes) noexcept {
    for (std::size_t i = 0; i < bitmaps.size(); ++i) bitmaps[i] = core::load_le<std::uint32_t>(bytes + 4 * i);
  }

  /// Whether the bitmaps have as many coded values as the index says.
  [[nodiscard]] bool agrees_with(std::uint64_t counts) const noexcept {
    std::uint32_t n = 0;
    for (std::uint32_t s = 0; s < geometry::kStrips; ++s) {
      const std::uint32_t* w = bitmaps.data() + std::size_t{s} * geometry::kStripWords;
      for (std::uint32_t i = 0; i < geometry::kPlaneWords; ++i) {
        n += static_cast<std::uint32_t>(
            std::popcount(w[i] | w[i + geometry::kPlaneWords] | w[i + 2 * geometry::kPlaneWords]));
      }
      if (n != tcatbe_coded_up_to(counts, s)) return false;
    }
    return true;
  }

  /// What comes next. Not members: stores of bytes might change those.
  struct cursors {
    const std::uint8_t* coded;
    std::uint16_t* escaped;
  };

  cursors take_row(std::size_t at, std::uint64_t is_coded, cursors from) noexcept {
    if (is_coded == 0x0101010101010101u) {
      memcpy(rests.data() + at, from.coded, 8);
      from.coded += 8;
      return from;
    }
    for (std::uint32_t i = 0; i < 8; ++i) {
      const auto one = static_cast<std::uint32_t>(is_coded >> (8 * i) & 1);
      rests[at + i] = *from.coded;
      *from.escaped = static_cast<std::uint16_t>(at + i);
      from.coded += one;
      from.escaped += 1 - one;
    }
    return from;
  }

  cursors take_small_tile(std::uint32_t strip, std::uint32_t tile, cursors from) noexcept {
    const std::size_t corner =
        std::size_t{strip * geometry::kStripRows + tcatbe_tile_row(tile)} * geometry::kSide +
        tcatbe_tile_col(tile);
    const std::uint32_t* words = bitmaps.data() + std::size_t{strip} * geometry::kStripWords;
    for (std::uint32_t word = 0; word < 2; ++word) {
      const std::uint32_t w[] = {words[tcatbe_word(0, word, tile)], words[tcatbe_word(1, word, tile)],
                                 words[tcatbe_word(2, word, tile)]};
      for (std::uint32_t row = 0; row < 4; ++row) {
        const auto plane = [&](std::uint32_t k) {
          const std::uint32_t bits = w[k] >> (4 * row);
          return kRowBytes[(bits & 0x0f) | (bits >> 12 & 0xf0)];
        };
        const std::uint64_t p0 = plane(0), p1 = plane(1), p2 = plane(2);
        const std::size_t at = corner + (4 * word + row) * std::size_t{geometry::kSide};
        core::store_le(codes.data() + at, p0 | p1 << 1 | p2 << 2);
        from = take_row(at, p0 | p1 | p2, from);
      }
    }
    return from;
  }

  /// `first` is the exponent of code 1, `escapes` the tile's escapes.
  void unpack(std::uint32_t first, const std::uint8_t* escapes) noexcept {
    cursors from = {coded.data(), escaped.data()};
    for (std::uint32_t s = 0; s < geometry::kStrips; ++s) {
      for (std::uint32_t t = 0; t < geometry::kSmallTiles; ++t) from = take_small_tile(s, t, from);
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto exponent = static_cast<std::uint16_t>(first + codes[i] - 1);
      values[i] =
          static_cast<std::uint16_t>((exponent << 7 & 0x7f80) | (rests[i] & 0x80) << 8 | (rests[i] & 0x7f));
    }
    const auto n_escapes = static_cast<std::size_t>(from.escaped - escaped.data());
    for (std::size_t i = 0; i < n_escapes; ++i)
      values[escaped[i]] = core::load_le<std::uint16_t>(escapes + 2 * i);
  }
};

void unpack_tile(const unpack_job& job, std::uint64_t tile, unpacked_tile& t, first_error& errors) {
  const std::uint64_t counts = job.record(tile, 2);
  t.load_bitmaps(job.base + job.sections.bitmaps_at + tile * geometry::kBitmapBytes);
  if (!t.agrees_with(counts)) return errors.note(tile, errc::digest_mismatch, "bitmaps and index disagree");
  const std::uint32_t n_coded = tcatbe_coded_up_to(counts, geometry::kStrips - 1);
  const std::uint32_t n_escapes = geometry::kValues - n_coded;
  const std::uint8_t* coded = job.base + job.sections.coded_at + job.record(tile, 0);
  const std::uint8_t* escapes = job.base + job.info.overflow_at + job.record(tile, 1);
  // Values are taken from a copy: the one behind the last may be read.
  memcpy(t.coded.data(), coded, n_coded);
  t.coded[n_coded] = 0;
  t.unpack(job.info.first_symbol, escapes);
  if (!is_zero(coded + n_coded, tcatbe_coded_bytes(n_coded) - n_coded) ||
      !is_zero(escapes + 2 * std::size_t{n_escapes}, tcatbe_escape_bytes(n_coded) - 2 * n_escapes)) {
    return errors.note(tile, errc::malformed, "bytes behind a tile's values are not zero");
  }
  if (tcatbe_digest(t.values, tile) != job.digest(tile))
    return errors.note(tile, errc::digest_mismatch, "block digest differs");
  const auto at = tcatbe_extent_of(job.info.rows, job.info.cols, job.sections.col_tiles, tile);
  store_tcatbe_tile(t.values, at, job.dst);
}

}  // namespace

status tcatbe_unpack(core::thread_pool& pool, const matrix_info& info, std::span<const std::uint8_t> bytes,
                     const matrix_place<std::uint8_t>& dst) {
  if (bytes.size() < info.n_bytes)
    return fail_at(errc::truncated, "the packed matrix ends too early", bytes.size());
  const matrix_words words = load_matrix_words(bytes.data());
  const unpack_job job{
      .info = info, .sections = make_tcatbe_sections(info.rows, info.cols), .base = bytes.data(), .dst = dst};
  TERSOR_CHECK(check_index(job, words));
  TERSOR_CHECK(check_gaps(job, words));
  first_error errors;
  std::atomic<std::uint64_t> next{0};
  const std::uint64_t n_tiles = job.sections.n_tiles;
  const std::uint64_t n_groups = core::ceil_div(n_tiles, kGroupTiles);
  pool.run(static_cast<unsigned>(std::clamp<std::uint64_t>(n_groups, 1, pool.size())), [&](unsigned) {
    unpacked_tile t;
    while (true) {
      const std::uint64_t first = next.fetch_add(1, std::memory_order_relaxed) * kGroupTiles;
      if (first >= n_tiles) break;
      for (std::uint64_t tile = first; tile < std::min(n_tiles, first + kGroupTiles) && !errors.is_past(tile);
           ++tile)
        unpack_tile(job, tile, t, errors);
    }
  });
  return errors.to_status();
}

}  // namespace tersor::codec_detail
