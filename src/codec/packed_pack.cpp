#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "codec/packed_block.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

using core::load_le;
using core::store_le;
using geometry = packed_geometry;

/// Blocks that one worker packs before it places their overflow entries.
constexpr std::uint64_t kGroupBlocks = 32;
static_assert(kBlockSymbols == geometry::kValues);
constexpr std::uint8_t kEscapeCode = 0x80;
constexpr std::uint64_t kEachByte = 0x0101010101010101u;

/// A block between source and packed bytes; everything in tile order.
struct block_work {
  alignas(64) std::array<std::uint8_t, kBlockValueBytes> values;
  alignas(64) std::array<std::uint8_t, geometry::kValues> symbols;
  alignas(64) std::array<std::uint8_t, geometry::kValues> rest;
  alignas(64) std::array<std::uint8_t, geometry::kValues> high;  ///< FP16: sign << 3 | mantissa bits 9..8
  alignas(64) std::array<std::uint8_t, geometry::kValues> codes;
};

/// What the workers of one call share.
struct pack_job {
  const tile_ops* ops;
  matrix_place<const std::uint8_t> src;
  std::span<std::uint8_t> dst;
  packed_sections sections;
  std::uint32_t inline_escapes;
  std::uint64_t* digests;

  std::atomic<std::uint64_t> next_group{0};
  std::atomic<std::uint64_t> placed_group{0};
  std::uint64_t n_overflow = 0;  ///< of the groups placed
  std::atomic<bool> stop{false};
};

template <bool Half>
void split_block(block_work& work) noexcept {
  for (std::uint32_t i = 0; i < geometry::kValues; ++i) {
    const std::uint32_t v = load_le<std::uint16_t>(work.values.data() + 2 * i);
    work.symbols[i] =
        static_cast<std::uint8_t>(v >> packed_split<Half>::kMantissaBits & packed_split<Half>::kAllOnes);
    if constexpr (Half) {
      work.rest[i] = static_cast<std::uint8_t>(v);
      work.high[i] = static_cast<std::uint8_t>((v >> 12 & 8) | (v >> 8 & 3));
    } else {
      work.rest[i] = static_cast<std::uint8_t>((v >> 8 & 0x80) | (v & 0x7f));
    }
  }
}

using symbol_counts = std::array<std::uint16_t, 256>;

void count_symbols(const tile_ops& ops, const block_work& work, symbol_counts& counts) noexcept {
  counts.fill(0);
  if (ops.count_block != nullptr) return ops.count_block(work.symbols.data(), counts.data());
  // Four tables hide the latency of repeated increments of one counter.
  std::array<symbol_counts, 4> tables = {};
  for (std::uint32_t i = 0; i < geometry::kValues; i += 8) {
    const auto symbols = load_le<std::uint64_t>(work.symbols.data() + i);
    for (std::uint32_t k = 0; k < 8; ++k) ++tables[k % 4][symbols >> (8 * k) & 0xff];
  }
  for (const symbol_counts& table : tables) {
    for (std::size_t s = 0; s < counts.size(); ++s)
      counts[s] = static_cast<std::uint16_t>(counts[s] + table[s]);
  }
}

/// The eight most frequent symbols, ties by the smaller one; `n_padding` values of symbol 0 do not count.
template <bool Half>
std::array<std::uint8_t, geometry::kSymbols> choose_book(const tile_ops& ops, const block_work& work,
                                                         std::uint32_t n_padding) noexcept {
  symbol_counts counts;
  count_symbols(ops, work, counts);
  counts[0] = static_cast<std::uint16_t>(counts[0] - n_padding);
  // Keys of symbols that occur; the others follow in ascending order.
  std::array<std::uint32_t, geometry::kSymbols> best = {};
  std::uint32_t n_symbols = 0;
  const auto add = [&](std::uint32_t symbol) {
    std::uint32_t key = std::uint32_t{counts[symbol]} << 8 | (255 - symbol);
    n_symbols += counts[symbol] != 0 ? 1U : 0U;
    if (counts[symbol] == 0 || key <= best.back()) return;
    for (std::uint32_t& place : best) {
      if (key > place) std::swap(key, place);
    }
  };
  for (std::uint32_t s = 0; s < packed_split<Half>::kSymbols; s += 4) {
    std::uint64_t four;
    memcpy(&four, counts.data() + s, 8);
    for (std::uint32_t k = 0; k < 4 && four != 0; ++k) add(s + k);
  }
  for (std::uint32_t s = 0; n_symbols < geometry::kSymbols; ++s) {
    if (counts[s] == 0) best[n_symbols++] = 255 - s;
  }
  std::array<std::uint8_t, geometry::kSymbols> book;
  for (std::size_t i = 0; i < book.size(); ++i) book[i] = static_cast<std::uint8_t>(255 - (best[i] & 0xff));
  return book;
}

/// Codes by comparison with all eight symbols, 64 values at a time, which compilers turn into vectors; a
/// table in memory would take one value at a time.
void find_codes(const tile_ops& ops, const std::array<std::uint8_t, geometry::kSymbols>& book,
                block_work& work) noexcept {
  if (ops.map_block != nullptr) {
    std::array<std::uint8_t, 256> table;
    table.fill(kEscapeCode);
    for (std::uint32_t k = 0; k < geometry::kSymbols; ++k) table[book[k]] = static_cast<std::uint8_t>(k);
    return ops.map_block(work.symbols.data(), table.data(), work.codes.data());
  }
  constexpr std::uint32_t kPart = 64;
  for (std::uint32_t first = 0; first < geometry::kValues; first += kPart) {
    std::array<std::uint8_t, kPart> codes;
    codes.fill(kEscapeCode);
    for (std::uint32_t k = 0; k < geometry::kSymbols; ++k) {
      const auto change = static_cast<std::uint8_t>(kEscapeCode | k);
      for (std::uint32_t i = 0; i < kPart; ++i) {
        const auto found = static_cast<std::uint8_t>(-(work.symbols[first + i] == book[k]));
        codes[i] = static_cast<std::uint8_t>(codes[i] ^ (found & change));
      }
    }
    memcpy(work.codes.data() + first, codes.data(), kPart);
  }
}

/// The low nibbles of bytes to a plane, all at once so that compilers make vectors of it.
void close_nibbles(const std::uint8_t* nibbles, std::uint32_t n_bytes, std::uint8_t* plane) noexcept {
  for (std::uint32_t i = 0; i < n_bytes; ++i) {
    const std::uint32_t two = load_le<std::uint16_t>(nibbles + 2 * i);
    plane[i] = static_cast<std::uint8_t>(two | two >> 4);
  }
}

template <bool Half>
void write_planes(const block_work& work, std::uint8_t* block) noexcept {
  std::array<std::uint8_t, geometry::kValues / 2> low;
  std::array<std::uint8_t, Half ? geometry::kValues : geometry::kValues / 4> high;
  const auto codes = [&](std::uint32_t step, std::uint32_t lane) {
    return load_le<std::uint64_t>(work.codes.data() + step * kStepValues + lane * 8);
  };
  for (std::uint32_t n = 0; n < kGranules; ++n)
    memcpy(block + 8 * n, work.rest.data() + 8 * tile_granule(n), 8);
  for (std::uint32_t lane = 0; lane < geometry::kLanes; ++lane) {
    for (std::uint32_t i = 0; i < 4; ++i) {
      store_le<std::uint64_t>(low.data() + lane * 32 + i * 8,
                              (codes(2 * i, lane) & 3 * kEachByte) | (codes(2 * i + 1, lane) & 3 * kEachByte)
                                                                         << 2);
    }
    for (std::uint32_t i = 0; i < 2 && !Half; ++i) {
      store_le<std::uint64_t>(
          high.data() + lane * 16 + i * 8,
          (codes(4 * i, lane) & 4 * kEachByte) | (codes(4 * i + 1, lane) & 4 * kEachByte) << 1 |
              (codes(4 * i + 2, lane) & 4 * kEachByte) >> 1 | (codes(4 * i + 3, lane) & 4 * kEachByte) >> 2);
    }
    for (std::uint32_t step = 0; step < geometry::kSteps && Half; ++step) {
      const auto rest = load_le<std::uint64_t>(work.high.data() + step * kStepValues + lane * 8);
      store_le<std::uint64_t>(high.data() + step / 4 * 1024 + lane * 32 + step % 4 * 8,
                              rest | (codes(step, lane) & 4 * kEachByte));
    }
  }
  close_nibbles(low.data(), low.size() / 2, block + geometry::kLowAt);
  close_nibbles(high.data(), high.size() / 2, block + geometry::kHighAt);
}

/// Writes the block's inline entries and appends the others; returns the number of the latter.
template <bool Half>
std::uint32_t write_escapes(const block_work& work, std::uint32_t first_symbol, std::uint32_t inline_escapes,
                            std::uint8_t* block, std::vector<std::uint32_t>& overflow) {
  std::uint8_t* entries = block + geometry::escapes_at(Half);
  std::uint32_t n_inline = 0;
  const std::size_t before = overflow.size();
  const auto put_all = [&](std::uint32_t granule, std::uint32_t at, std::uint64_t escapes) {
    for (; escapes != 0; escapes &= escapes - 1) {
      const auto j = static_cast<std::uint32_t>(std::countr_zero(escapes)) / 8;
      const std::uint32_t position = 8 * granule + j;
      const std::uint32_t symbol = work.symbols[at + j];
      const std::uint32_t index = escape_index(Half, first_symbol, symbol);
      if (index != kNoEscapeIndex && n_inline < inline_escapes) {
        store_le<std::uint16_t>(entries + 2 * n_inline++,
                                static_cast<std::uint16_t>(position | index << geometry::kPositionBits));
      } else {
        overflow.push_back(position | symbol << 16);
      }
    }
  };
  // Granules n (even) and n + 1 are those of a lane in two steps that follow each other.
  for (std::uint32_t n = 0; n < kGranules; n += 2) {
    const std::uint32_t at = 8 * tile_granule(n);
    const auto even = load_le<std::uint64_t>(work.codes.data() + at);
    const auto odd = load_le<std::uint64_t>(work.codes.data() + at + kStepValues);
    if (((even | odd) & kEscapeCode * kEachByte) == 0) continue;
    put_all(n, at, even & kEscapeCode * kEachByte);
    put_all(n + 1, at + kStepValues, odd & kEscapeCode * kEachByte);
  }
  memset(entries + 2 * n_inline, 0, 2 * std::size_t{inline_escapes - n_inline});
  const auto n_overflow = static_cast<std::uint32_t>(overflow.size() - before);
  std::uint8_t* head = block + geometry::head_at(Half);
  store_le<std::uint16_t>(head + 8, static_cast<std::uint16_t>(n_inline));
  store_le<std::uint16_t>(head + 10, static_cast<std::uint16_t>(n_overflow));
  store_le<std::uint32_t>(head + 12, 0);
  return n_overflow;
}

template <bool Half>
std::uint32_t pack_block(const pack_job& job, std::uint64_t number, block_work& work,
                         std::vector<std::uint32_t>& overflow) {
  const block_window w = window_of(number, job.sections.col_blocks, job.src.rows, job.src.cols);
  std::uint8_t* block = job.dst.data() + geometry::kHeaderBytes + number * job.sections.block_bytes;
  gather_block(job.src, w, 0, work.values.data());
  split_block<Half>(work);
  const auto book = choose_book<Half>(*job.ops, work, geometry::kValues - w.rows * w.cols);
  if (!w.is_whole()) {
    const std::uint32_t symbol = book[padding_code<Half>(book[0])];
    gather_block(job.src, w, static_cast<std::uint16_t>(symbol << packed_split<Half>::kMantissaBits),
                 work.values.data());
    split_block<Half>(work);
  }
  find_codes(*job.ops, book, work);
  write_planes<Half>(work, block);
  std::ranges::copy(book, block + geometry::head_at(Half));
  job.digests[number] = block_digest(*job.ops, work.values.data(), number);
  return write_escapes<Half>(work, book[0], job.inline_escapes, block, overflow);
}

/// Puts a group's overflow entries behind those of all earlier groups. Groups are taken in order, so the one
/// waited for is always at work.
void place_group(pack_job& job, std::uint64_t first_block, bool half,
                 const std::array<std::uint32_t, kGroupBlocks>& counts,
                 const std::vector<std::uint32_t>& overflow) {
  const std::uint64_t group = first_block / kGroupBlocks;
  while (job.placed_group.load(std::memory_order_acquire) != group) std::this_thread::yield();
  std::uint64_t at = job.n_overflow;
  job.n_overflow += overflow.size();
  job.placed_group.store(group + 1, std::memory_order_release);
  const std::uint64_t begin = job.sections.overflow_at + 4 * at;
  if (job.dst.size() < begin || job.dst.size() - begin < 4 * overflow.size() ||
      at + overflow.size() > 0xffffffffu) {
    // How many bytes it would take is of no use any more: the caller learns that these do not suffice.
    job.stop.store(true, std::memory_order_relaxed);
    return;
  }
  for (std::size_t i = 0; i < overflow.size(); ++i)
    store_le<std::uint32_t>(job.dst.data() + begin + 4 * i, overflow[i]);
  for (std::uint64_t i = 0; i < kGroupBlocks; ++i) {
    if (counts[i] == 0) continue;
    std::uint8_t* block =
        job.dst.data() + geometry::kHeaderBytes + (first_block + i) * job.sections.block_bytes;
    store_le<std::uint32_t>(block + geometry::head_at(half) + 12, static_cast<std::uint32_t>(at));
    at += counts[i];
  }
}

template <bool Half>
void pack_worker(pack_job& job, block_work& work, std::vector<std::uint32_t>& overflow) {
  while (!job.stop.load(std::memory_order_relaxed)) {
    const std::uint64_t first = job.next_group.fetch_add(1, std::memory_order_relaxed) * kGroupBlocks;
    if (first >= job.sections.n_blocks) break;
    overflow.clear();
    std::array<std::uint32_t, kGroupBlocks> counts = {};
    const std::uint64_t n = std::min(kGroupBlocks, job.sections.n_blocks - first);
    for (std::uint64_t i = 0; i < n; ++i) counts[i] = pack_block<Half>(job, first + i, work, overflow);
    place_group(job, first, Half, counts, overflow);
  }
}

void zero_between(std::span<std::uint8_t> dst, std::uint64_t from, std::uint64_t to) noexcept {
  memset(dst.data() + from, 0, static_cast<std::size_t>(to - from));
}

/// Everything behind the blocks, then the header.
std::uint64_t finish(const pack_job& job, dtype type, const packed_sections& s) {
  zero_between(job.dst, s.blocks_end, s.overflow_at);
  zero_between(job.dst, s.overflow_end, s.digests_at);
  std::uint64_t content = 0;
  for (std::uint64_t b = 0; b < s.n_blocks; ++b) {
    store_le<std::uint64_t>(job.dst.data() + s.digests_at + 8 * b, job.digests[b]);
    content += matrix_index_hash(b, job.digests[b], 0);
  }
  zero_between(job.dst, s.digests_end, s.n_bytes);
  matrix_words w = {};
  w[kWordMagic] = first_matrix_word(matrix_layout::packed, type);
  w[kWordRows] = job.src.rows;
  w[kWordCols] = job.src.cols;
  w[kWordBytes] = s.n_bytes;
  w[kWordParameters] = s.block_bytes | std::uint64_t{job.inline_escapes} << 32;
  w[kWordBlocksAt] = geometry::kHeaderBytes;
  w[kWordOverflowAt] = s.overflow_at;
  w[kWordOverflowCount] = job.n_overflow;
  w[kWordDigestsAt] = s.digests_at;
  w[kWordContentDigest] = content;
  seal_matrix(w, job.dst.data());
  return s.n_bytes;
}

}  // namespace

result<std::uint64_t> pack_blocks(const engine& e, dtype type, const matrix_place<const std::uint8_t>& src,
                                  std::uint32_t inline_escapes, std::span<std::uint8_t> dst) {
  const auto too_small = [&](std::uint64_t needed) {
    return fail(errc::destination_too_small, "destination has " + std::to_string(dst.size()) +
                                                 " bytes, the packed matrix has at least " +
                                                 std::to_string(needed));
  };
  const auto least = make_packed_sections(type, src.rows, src.cols, inline_escapes, 0);
  if (!least) return fail(errc::size_overflow, "matrix size leaves 64 bits");
  if (dst.size() < least->n_bytes) return too_small(least->n_bytes);

  const auto digests = std::make_unique_for_overwrite<std::uint64_t[]>(least->n_blocks);
  pack_job job{.ops = e.ops,
               .src = src,
               .dst = dst,
               .sections = *least,
               .inline_escapes = inline_escapes,
               .digests = digests.get()};
  const std::uint64_t n_groups = core::ceil_div(least->n_blocks, kGroupBlocks);
  const auto n_workers = static_cast<unsigned>(std::clamp<std::uint64_t>(n_groups, 1, e.pool->size()));
  const auto works = std::make_unique_for_overwrite<block_work[]>(n_workers);
  std::vector<std::vector<std::uint32_t>> overflows(n_workers);
  // Workers must not throw, so the room for the worst group is taken before.
  for (auto& overflow : overflows) overflow.reserve(kGroupBlocks * geometry::kValues);
  e.pool->run(n_workers, [&](unsigned worker) {
    type == dtype::f16 ? pack_worker<true>(job, works[worker], overflows[worker])
                       : pack_worker<false>(job, works[worker], overflows[worker]);
  });
  const auto sections = make_packed_sections(type, src.rows, src.cols, inline_escapes, job.n_overflow);
  if (!sections || job.n_overflow > 0xffffffffu)
    return fail(errc::size_overflow, "more escapes than a block can point to");
  if (dst.size() < sections->n_bytes || job.stop.load()) return too_small(sections->n_bytes);
  return finish(job, type, *sections);
}

}  // namespace tersor::codec_detail
