#include <algorithm>
#include <atomic>
#include <bit>
#include <memory>
#include <vector>

#include "codec/first_error.hpp"
#include "codec/packed_block.hpp"
#include "core/checked.hpp"

namespace tersor::codec_detail {
namespace {

using core::load_le;
using core::store_le;
using geometry = packed_geometry;

constexpr std::uint64_t kGroupBlocks = 32;
constexpr std::uint64_t kEachByte = 0x0101010101010101u;
constexpr const char* kBadBook = "codebook entries repeat, leave the symbol width or are not canonical";
constexpr const char* kBadEscapes = "a block's escapes contradict its codes";
constexpr const char* kBadOverflow = "a block's overflow entries are not those behind the block before";
constexpr const char* kBadPadding = "padding is not zero";

/// A block between packed bytes and destination, in tile order.
struct block_work {
  alignas(64) std::array<std::uint8_t, kBlockValueBytes> values;
  alignas(64) std::array<std::uint8_t, geometry::kValues> codes;
  alignas(64) std::array<std::uint8_t, geometry::kValues> symbols;  ///< before escapes
  alignas(64) std::array<std::uint8_t, geometry::kValues> rest;
  alignas(64) std::array<std::uint8_t, geometry::kValues> high;  ///< FP16: sign << 3 | code bit | mantissa
};

struct block_head {
  std::array<std::uint8_t, geometry::kSymbols> book;
  std::uint32_t n_inline, n_overflow, first_overflow;
};

/// The overflow entries of a group of blocks, for the comparison with its neighbours.
struct overflow_run {
  std::uint64_t first = 0, end = 0;
  std::uint64_t first_block = 0;  ///< the first one that has any
  [[nodiscard]] bool is_empty() const noexcept { return first == end; }
};

struct unpack_job {
  const tile_ops* ops;
  const matrix_info* info;
  packed_sections sections;
  const std::uint8_t* base;
  matrix_place<std::uint8_t> dst;
  overflow_run* runs;
  std::uint64_t first_block, end_block;
  std::uint64_t first_row;  ///< of the matrix, at the start of dst

  std::atomic<std::uint64_t> next_group{0};
  first_error error = {};
};

block_head read_head(const std::uint8_t* head) noexcept {
  block_head h;
  std::copy_n(head, h.book.size(), h.book.begin());
  h.n_inline = load_le<std::uint16_t>(head + 8);
  h.n_overflow = load_le<std::uint16_t>(head + 10);
  h.first_overflow = load_le<std::uint32_t>(head + 12);
  return h;
}

/// Spreads the nibbles of a plane to bytes, all at once so that compilers make vectors of it.
void open_nibbles(const std::uint8_t* plane, std::uint32_t n_bytes, std::uint8_t* nibbles) noexcept {
  for (std::uint32_t i = 0; i < n_bytes; ++i) {
    const std::uint32_t b = plane[i];
    store_le<std::uint16_t>(nibbles + 2 * i, static_cast<std::uint16_t>((b & 15) | b >> 4 << 8));
  }
}

template <bool Half>
void read_planes(const std::uint8_t* block, block_work& work) noexcept {
  constexpr std::uint64_t kLow = 3 * kEachByte, kHigh = 4 * kEachByte;
  std::array<std::uint8_t, geometry::kValues / 2> low;
  std::array<std::uint8_t, Half ? geometry::kValues : geometry::kValues / 4> high;
  open_nibbles(block + geometry::kLowAt, low.size() / 2, low.data());
  open_nibbles(block + geometry::kHighAt, high.size() / 2, high.data());
  for (std::uint32_t n = 0; n < kGranules; ++n)
    memcpy(work.rest.data() + 8 * tile_granule(n), block + 8 * n, 8);
  for (std::uint32_t lane = 0; lane < geometry::kLanes; ++lane) {
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint8_t* at = low.data() + lane * 32 + i * 16;
      const auto a = load_le<std::uint64_t>(at), b = load_le<std::uint64_t>(at + 8);
      const std::array<std::uint64_t, 4> codes = {a & kLow, a >> 2 & kLow, b & kLow, b >> 2 & kLow};
      std::array<std::uint64_t, 4> bits;
      if constexpr (Half) {
        for (std::uint32_t k = 0; k < 4; ++k) {
          bits[k] = load_le<std::uint64_t>(high.data() + i * 1024 + lane * 32 + k * 8);
          store_le<std::uint64_t>(work.high.data() + (4 * i + k) * kStepValues + lane * 8, bits[k]);
        }
      } else {
        const auto all = load_le<std::uint64_t>(high.data() + lane * 16 + i * 8);
        bits = {all, all >> 1, all << 1, all << 2};
      }
      for (std::uint32_t k = 0; k < 4; ++k) {
        store_le<std::uint64_t>(work.codes.data() + (4 * i + k) * kStepValues + lane * 8,
                                codes[k] | (bits[k] & kHigh));
      }
    }
  }
}

/// What a value's rest adds to its symbol.
template <bool Half>
std::uint32_t rest_bits(const block_work& work, std::uint32_t i) noexcept {
  const std::uint32_t rest = work.rest[i];
  if constexpr (Half) {
    const std::uint32_t high = work.high[i];
    return rest | (high & 3) << 8 | (high & 8) << 12;
  } else {
    return (rest & 0x80) << 8 | (rest & 0x7f);
  }
}

/// Codes and rests to values, where the backend maps codes to symbols.
template <bool Half>
void join_mapped(const tile_ops& ops, const block_head& head, block_work& work) noexcept {
  std::array<std::uint8_t, 256> table = {};
  std::ranges::copy(head.book, table.begin());
  ops.map_block(work.codes.data(), table.data(), work.symbols.data());
  for (std::uint32_t i = 0; i < geometry::kValues; ++i) {
    const std::uint32_t symbol = work.symbols[i];
    const auto v =
        static_cast<std::uint16_t>(symbol << packed_split<Half>::kMantissaBits | rest_bits<Half>(work, i));
    store_le<std::uint16_t>(work.values.data() + 2 * i, v);
  }
}

/// Codes and rests to values. Two codes at a time name two symbols in place.
template <bool Half>
void join_block(const block_head& head, block_work& work) noexcept {
  constexpr std::uint32_t kShift = packed_split<Half>::kMantissaBits;
  std::array<std::array<std::uint8_t, 4>, 64> pairs;
  for (std::uint32_t i = 0; i < 64; ++i) {
    store_le<std::uint32_t>(pairs[i].data(), std::uint32_t{head.book[i % 8]} << kShift |
                                                 std::uint32_t{head.book[i / 8]} << (kShift + 16));
  }
  for (std::uint32_t n = 0; n < kGranules; ++n) {
    auto codes = load_le<std::uint64_t>(work.codes.data() + 8 * n);
    codes |= codes >> 5;
    for (std::uint32_t k = 0; k < 4; ++k)
      memcpy(work.values.data() + 16 * n + 4 * k, pairs[codes >> (16 * k) & 63].data(), 4);
  }
  for (std::uint32_t i = 0; i < geometry::kValues; ++i) {
    const std::uint32_t symbol = load_le<std::uint16_t>(work.values.data() + 2 * i);
    store_le<std::uint16_t>(work.values.data() + 2 * i,
                            static_cast<std::uint16_t>(symbol | rest_bits<Half>(work, i)));
  }
}

template <bool Half>
bool is_valid_book(const block_head& head) noexcept {
  for (std::uint32_t i = 0; i < geometry::kSymbols; ++i) {
    if (head.book[i] >= packed_split<Half>::kSymbols) return false;
    for (std::uint32_t k = 0; k < i; ++k) {
      if (head.book[i] == head.book[k]) return false;
    }
  }
  return true;
}

/// Bit `c` is set if a value inside the matrix has code `c`. Code 0 always counts: its symbol is the most
/// frequent one.
std::uint32_t codes_in_use(const block_work& work, const block_window& w) noexcept {
  std::uint32_t used = 1;
  for (std::uint32_t n = 0; n < kGranules && used != 0xff; ++n) {
    for (std::uint32_t j = 0; j < 8; ++j) {
      const packed_place place = {n % 32, n / 32, j};
      if (!w.is_whole() && (row_of(place) >= w.rows || col_of(place) >= w.cols)) continue;
      used |= 1u << work.codes[8 * n + j];
    }
  }
  return used;
}

/// No digest covers the entries that no value uses, so they are compared with what packing writes: the
/// smallest symbols that do not occur. Without that a bit could change unseen.
bool has_canonical_fill(const block_head& head, std::uint32_t used) noexcept {
  if (used == 0xff) return true;
  const auto n_used = static_cast<std::uint32_t>(std::popcount(used));
  if (used != (1u << n_used) - 1 || head.n_inline + head.n_overflow != 0) return false;
  const auto* begin = head.book.data();
  std::uint32_t symbol = 0;
  for (std::uint32_t i = n_used; i < geometry::kSymbols; ++i, ++symbol) {
    while (std::find(begin, begin + n_used, symbol) != begin + n_used) ++symbol;
    if (head.book[i] != symbol) return false;
  }
  return true;
}

/// Gives one value the symbol of its escape; false if the entry is not behind `after` or the value has
/// another code than 0.
template <bool Half>
bool put_escape(block_work& work, std::uint32_t position, std::uint32_t symbol,
                std::uint32_t& after) noexcept {
  if (position < after || symbol >= packed_split<Half>::kSymbols) return false;
  after = position + 1;
  const std::uint32_t i = 8 * tile_granule(position / 8) + position % 8;
  if (work.codes[i] != 0) return false;
  std::uint8_t* at = work.values.data() + 2 * i;
  const std::uint32_t v = load_le<std::uint16_t>(at) & ~packed_split<Half>::kSymbolMask;
  store_le<std::uint16_t>(at, static_cast<std::uint16_t>(v | symbol << packed_split<Half>::kMantissaBits));
  return true;
}

template <bool Half>
bool put_escapes(const unpack_job& job, const block_head& head, const std::uint8_t* block,
                 block_work& work) noexcept {
  const std::uint8_t* entries = block + geometry::escapes_at(Half);
  std::uint32_t after = 0;
  for (std::uint32_t i = 0; i < head.n_inline; ++i) {
    const std::uint32_t entry = load_le<std::uint16_t>(entries + 2 * i);
    const std::uint32_t symbol = escape_symbol(Half, head.book[0], entry >> geometry::kPositionBits);
    if (!put_escape<Half>(work, entry % geometry::kValues, symbol, after)) return false;
  }
  const std::uint8_t* end = entries + 2 * std::size_t{job.info->inline_escapes};
  if (std::any_of(entries + 2 * head.n_inline, end, [](std::uint8_t b) { return b != 0; })) return false;
  after = 0;
  const std::uint8_t* overflow = job.base + job.sections.overflow_at + 4 * std::uint64_t{head.first_overflow};
  for (std::uint32_t i = 0; i < head.n_overflow; ++i) {
    const auto entry = load_le<std::uint32_t>(overflow + 4 * std::size_t{i});
    if ((entry & 0xffff) >= geometry::kValues) return false;
    if (!put_escape<Half>(work, entry & 0xffff, entry >> 16, after)) return false;
  }
  return true;
}

/// The padding of a block that leaves the matrix decodes to one finite value of rest zero.
template <bool Half>
bool has_canonical_padding(const block_head& head, const block_work& work, const block_window& w) noexcept {
  const std::uint32_t fill = std::uint32_t{head.book[padding_code<Half>(head.book[0])]}
                             << packed_split<Half>::kMantissaBits;
  for (std::uint32_t i = 0; i < geometry::kValues; ++i) {
    const packed_place place = {i / 8 % 32, i / 256, i % 8};
    const bool inside = row_of(place) < w.rows && col_of(place) < w.cols;
    if (!inside && load_le<std::uint16_t>(work.values.data() + 2 * i) != fill) return false;
  }
  return true;
}

/// False if the block's overflow entries are outside the section or not behind those of the block before in
/// the group.
bool note_overflow(const unpack_job& job, const block_head& head, std::uint64_t number,
                   overflow_run& run) noexcept {
  if (head.n_overflow == 0) return head.first_overflow == 0;
  const std::uint64_t first = head.first_overflow;
  const std::uint64_t total = job.info->n_overflow;
  if (first > total || head.n_overflow > total - first) return false;
  if (run.is_empty()) {
    run = {.first = first, .end = first, .first_block = number};
  } else if (run.end != first) {
    return false;
  }
  run.end += head.n_overflow;
  return true;
}

/// Null if the block is good, else what is wrong with it.
template <bool Half>
const char* unpack_block(const unpack_job& job, std::uint64_t number, block_work& work, overflow_run& run) {
  const std::uint8_t* block = job.base + geometry::kHeaderBytes + number * job.sections.block_bytes;
  const block_head head = read_head(block + geometry::head_at(Half));
  const block_window w = window_of(number, job.sections.col_blocks, job.info->rows, job.info->cols);
  if (!note_overflow(job, head, number, run)) return kBadOverflow;
  if (head.n_inline > job.info->inline_escapes) return kBadEscapes;
  if (!is_valid_book<Half>(head)) return kBadBook;
  read_planes<Half>(block, work);
  if (!has_canonical_fill(head, codes_in_use(work, w))) return kBadBook;
  job.ops->map_block != nullptr ? join_mapped<Half>(*job.ops, head, work) : join_block<Half>(head, work);
  if (!put_escapes<Half>(job, head, block, work)) return kBadEscapes;
  if (!w.is_whole() && !has_canonical_padding<Half>(head, work, w)) return kBadPadding;
  block_window to = w;
  to.row -= job.first_row;
  scatter_block(work.values.data(), job.dst, to);
  return nullptr;
}

template <bool Half>
void unpack_worker(unpack_job& job, block_work& work) {
  while (true) {
    const std::uint64_t group = job.next_group.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t first = job.first_block + group * kGroupBlocks;
    if (first >= job.end_block) break;
    const std::uint64_t end = std::min(first + kGroupBlocks, job.end_block);
    overflow_run run;
    for (std::uint64_t b = first; b < end && !job.error.is_past(b); ++b) {
      if (const char* wrong = unpack_block<Half>(job, b, work, run); wrong != nullptr) {
        job.error.note(b, errc::malformed, wrong);
        break;
      }
      const auto digest = load_le<std::uint64_t>(job.base + job.sections.digests_at + 8 * b);
      if (block_digest(*job.ops, work.values.data(), b) != digest) {
        job.error.note(b, errc::digest_mismatch, "block digest differs");
        break;
      }
    }
    job.runs[group] = run;
  }
}

/// Every overflow entry belongs to one block, in the order of the blocks.
status check_runs(const unpack_job& job, std::uint64_t n_groups) {
  std::uint64_t at = 0;
  for (std::uint64_t g = 0; g < n_groups; ++g) {
    const overflow_run& run = job.runs[g];
    if (run.is_empty()) continue;
    if (run.first != at) {
      auto e = fail(errc::malformed, kBadOverflow);
      e.value().chunk = run.first_block;
      return e;
    }
    at = run.end;
  }
  if (at != job.info->n_overflow)
    return fail_at(errc::malformed, "overflow entries that belong to no block", job.sections.overflow_at);
  return {};
}

/// The gaps between sections, and the digests against the header.
status check_sections(const unpack_job& job) {
  const packed_sections& s = job.sections;
  const auto zero = [&](std::uint64_t from, std::uint64_t to) -> status {
    for (std::uint64_t i = from; i < to; ++i) {
      if (job.base[i] != 0) return fail_at(errc::malformed, "padding between sections is not zero", i);
    }
    return {};
  };
  TERSOR_CHECK(zero(s.blocks_end, s.overflow_at));
  TERSOR_CHECK(zero(s.overflow_end, s.digests_at));
  TERSOR_CHECK(zero(s.digests_end, s.n_bytes));
  std::uint64_t content = 0;
  for (std::uint64_t b = 0; b < s.n_blocks; ++b)
    content += matrix_index_hash(b, load_le<std::uint64_t>(job.base + s.digests_at + 8 * b), 0);
  if (content != load_le<std::uint64_t>(job.base + 8 * kWordContentDigest))
    return fail_at(errc::digest_mismatch, "digest of the block digests differs", s.digests_at);
  return {};
}

}  // namespace

status unpack_block_rows(const engine& e, const matrix_info& info, std::span<const std::uint8_t> bytes,
                         std::uint64_t first, std::uint64_t count, const matrix_place<std::uint8_t>& dst) {
  const auto sections =
      make_packed_sections(info.type, info.rows, info.cols, info.inline_escapes, info.n_overflow);
  if (!sections) return fail(errc::size_overflow, "declared sizes leave 64 bits");
  const std::uint64_t n_blocks = count * sections->col_blocks;
  const std::uint64_t n_groups = core::ceil_div(n_blocks, kGroupBlocks);
  const auto runs = std::make_unique<overflow_run[]>(n_groups);
  unpack_job job{.ops = e.ops,
                 .info = &info,
                 .sections = *sections,
                 .base = bytes.data(),
                 .dst = dst,
                 .runs = runs.get(),
                 .first_block = first * sections->col_blocks,
                 .end_block = first * sections->col_blocks + n_blocks,
                 .first_row = first * geometry::kRows};
  TERSOR_CHECK(check_sections(job));
  const auto n_workers = static_cast<unsigned>(std::clamp<std::uint64_t>(n_groups, 1, e.pool->size()));
  const auto works = std::make_unique_for_overwrite<block_work[]>(n_workers);
  e.pool->run(n_workers, [&](unsigned worker) {
    info.type == dtype::f16 ? unpack_worker<true>(job, works[worker])
                            : unpack_worker<false>(job, works[worker]);
  });
  TERSOR_CHECK(job.error.to_status());
  // Where the overflow entries of blocks that were not looked at end is not known.
  return n_blocks == sections->n_blocks ? check_runs(job, n_groups) : status();
}

status unpack_blocks(const engine& e, const matrix_info& info, std::span<const std::uint8_t> bytes,
                     const matrix_place<std::uint8_t>& dst) {
  return unpack_block_rows(e, info, bytes, 0, core::ceil_div(info.rows, std::uint64_t{geometry::kRows}), dst);
}

}  // namespace tersor::codec_detail
