// Every backend against the scalar reference: the same bytes, the same verdicts.
#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "codec/frame_codec.hpp"
#include "cpu/backends.hpp"
#include <tersor/codec.hpp>

namespace {

using namespace tersor::codec_detail;
using tersor::codebook;
using tersor::codec;
using tersor::dtype;
using bytes = std::vector<std::uint8_t>;

constexpr std::array kDtypes = {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2};
constexpr std::array kCodecs = {codec::top16, codec::rank};

std::size_t slot(dtype type) {
  return static_cast<std::size_t>(type) - 1;
}
std::size_t slot(codec c) {
  return static_cast<std::size_t>(c) - 1;
}

enum class kind { random_bits, geometric, wide_geometric, heavy_tail, constant, all_escape };
constexpr std::array kKinds = {kind::random_bits, kind::geometric, kind::wide_geometric,
                               kind::heavy_tail,  kind::constant,  kind::all_escape};

class source {
 public:
  explicit source(unsigned seed) : rng_(seed) {}
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(rng_() % n); }

  /// `n` values of a dtype whose symbols follow `k`.
  bytes values(dtype type, std::size_t n, kind k) {
    const dtype_planes& planes = *find_planes(type);
    const unsigned mantissa_bits = planes.value_bytes * 8u - 1u - planes.symbol_bits;
    const std::uint32_t symbol_mask = (1u << planes.symbol_bits) - 1;
    const std::uint32_t base = below(256);
    const std::uint32_t fall = k == kind::wide_geometric ? 5 : 2 + below(2);
    bytes out(n * planes.value_bytes);
    for (std::size_t i = 0; i < n; ++i) {
      auto value = static_cast<std::uint32_t>(rng_());
      if (k != kind::random_bits) {
        std::uint32_t symbol = base;
        if (k == kind::geometric || k == kind::wide_geometric || (k == kind::heavy_tail && below(50) != 0)) {
          while (below(fall) != 0 && symbol < base + 40) ++symbol;
        } else if (k == kind::heavy_tail) {
          symbol = below(256);
        } else if (k == kind::all_escape) {
          symbol = base + below(3);
        }
        value = (value & ~(symbol_mask << mantissa_bits)) | ((symbol & symbol_mask) << mantissa_bits);
      }
      std::memcpy(out.data() + i * planes.value_bytes, &value, planes.value_bytes);
    }
    return out;
  }

  /// The data's own codebook, or for all_escape one that avoids its symbols where that is possible.
  codebook book(const tile_ops& ops, dtype type, const bytes& data, kind k) {
    tersor::histogram counts;
    ops.count[slot(type)](data.data(), data.size() / tersor::value_bytes(type), counts.counts.data());
    if (k == kind::all_escape) {
      const std::size_t symbols = std::size_t{1} << find_planes(type)->symbol_bits;
      for (std::size_t s = 0; s < symbols; ++s) counts.counts[s] = counts.counts[s] == 0 ? 1 : 0;
    }
    codebook result = *tersor::make_codebook(type, counts);
    if (below(4) == 0) std::shuffle(result.symbols.begin(), result.symbols.end(), rng_);
    return result;
  }

 private:
  std::mt19937 rng_;
};

/// A tile's rest planes in one buffer of exactly their size, shifted by `offset`.
struct planes_buffer {
  planes_buffer(dtype type, std::size_t offset) {
    const dtype_planes& planes = *find_planes(type);
    std::size_t size = offset + planes.byte_planes * kTileValues;
    for (const unsigned width : planes.field_widths) size += width * (kTileValues / 8);
    storage.resize(size);
    std::uint8_t* at = storage.data() + offset;
    for (std::size_t i = 0; i < planes.byte_planes; ++i, at += kTileValues) in.bytes[i] = out.bytes[i] = at;
    for (std::size_t i = 0; i < planes.field_widths.size(); ++i) {
      if (planes.field_widths[i] == 0) continue;
      in.fields[i] = out.fields[i] = at;
      at += planes.field_widths[i] * (kTileValues / 8);
    }
  }
  bytes storage;
  rest_out out;
  rest_in in;
};

class differential : public testing::TestWithParam<std::string> {
 protected:
  const tile_ops& reference = tersor::cpu::scalar_ops();
  const tile_ops& tested = **tersor::cpu::choose_backend(GetParam());

  void compare_decoders(source& from, const coding& c, std::size_t which, const bytes& code_plane,
                        const bytes& tail, coded_tile coded, const bytes& symbols) {
    for (int fault = 0; fault < 7; ++fault) {
      bytes plane = code_plane;
      bytes bits = tail;
      std::uint32_t words = coded.words;
      bool escapes = coded.escapes;
      if (fault == 1 && words > 0)
        bits[from.below(words * 4)] ^= static_cast<std::uint8_t>(1u << from.below(8));
      if (fault == 2)
        plane[from.below(static_cast<std::uint32_t>(plane.size()))] ^=
            static_cast<std::uint8_t>(1u << from.below(8));
      if (fault == 3) ++words;
      if (fault == 4 && words > 0) --words;
      if (fault == 5) escapes = !escapes;
      if (fault == 6 && words > 0) bits[words * 4 - 1] ^= 0x80;
      if (words >= c.plan.raw_words()) continue;
      bits.resize(words * 4 + kTailReadSlack);
      bytes expected(kTileValues);
      bytes got(kTileValues);
      const bool verdict =
          reference.decode[which](c, plane.data(), bits.data(), words, escapes, expected.data());
      ASSERT_EQ(tested.decode[which](c, plane.data(), bits.data(), words, escapes, got.data()), verdict)
          << fault;
      if (verdict) {
        ASSERT_EQ(got, expected) << fault;
      }
      if (fault == 0) {
        ASSERT_TRUE(verdict && got == symbols);
      }
    }
  }

  void compare_coders(source& from, dtype type, codec which, const codebook& book, const bytes& symbols) {
    const level_plan plan = make_plan(which, find_planes(type)->symbol_bits);
    codebook used = book;
    std::fill(used.symbols.begin() + plan.n_entries, used.symbols.end(), std::uint8_t{0});
    const coding c = make_coding(plan, used);
    bytes expected_plane(plan.code_plane_bytes());
    bytes plane(plan.code_plane_bytes());
    bytes expected_tail(kTailScratchBytes);
    bytes tail(kTailScratchBytes);
    const auto i = slot(which);
    const coded_tile expected =
        reference.encode[i](c, symbols.data(), expected_plane.data(), expected_tail.data());
    const coded_tile coded = tested.encode[i](c, symbols.data(), plane.data(), tail.data());
    ASSERT_EQ(coded.words, expected.words);
    if (expected.words == kTileNotCoded) return;
    ASSERT_EQ(coded.escapes, expected.escapes);
    ASSERT_EQ(plane, expected_plane);
    expected_tail.resize(expected.words * 4);
    tail.resize(coded.words * 4);
    ASSERT_EQ(tail, expected_tail);
    compare_decoders(from, c, i, plane, tail, coded, symbols);
  }

  void compare_tile(source& from, dtype type, const std::uint8_t* values, const codebook& book) {
    const std::size_t tile_bytes = std::size_t{kTileValues} * tersor::value_bytes(type);
    const std::size_t offset = from.below(70);
    const bool stream = from.below(2) == 0;
    planes_buffer expected_rest(type, offset);
    planes_buffer rest(type, offset);
    bytes expected_symbols(kTileValues);
    bytes symbols(kTileValues);
    nh_sums expected_sums;
    nh_sums sums;
    reference.split[slot(type)](values, expected_rest.out, expected_symbols.data(), expected_sums, stream);
    tested.split[slot(type)](values, rest.out, symbols.data(), sums, stream);
    tested.finish();
    ASSERT_EQ(symbols, expected_symbols);
    ASSERT_EQ(rest.storage, expected_rest.storage);
    ASSERT_EQ(sums.t, expected_sums.t);
    for (const codec c : kCodecs) compare_coders(from, type, c, book, symbols);

    bytes joined(offset + tile_bytes + 1, 0x5a);
    sums = {};
    tested.join[slot(type)](rest.in, symbols.data(), joined.data() + offset, sums, stream);
    tested.finish();
    ASSERT_EQ(std::memcmp(joined.data() + offset, values, tile_bytes), 0);
    ASSERT_EQ(joined.back(), 0x5a);
    ASSERT_EQ(sums.t, expected_sums.t);
    sums = {};
    tested.nh(values, static_cast<std::uint32_t>(tersor::value_bytes(type)), sums);
    ASSERT_EQ(sums.t, expected_sums.t);
  }
};

TEST_P(differential, tiles_of_every_kind) {
  source from(1);
  for (int round = 0; round < 60; ++round) {
    for (const dtype type : kDtypes) {
      for (const kind k : kKinds) {
        const bytes data = from.values(type, kTileValues + 8, k);
        const codebook book = from.book(reference, type, data, k);
        compare_tile(from, type, data.data() + from.below(8), book);
        if (HasFatalFailure()) {
          FAIL() << tersor::to_string(type) << " kind " << static_cast<int>(k) << " round " << round;
        }
      }
    }
  }
}

TEST_P(differential, all_16_bit_patterns) {
  source from(2);
  bytes data(2 * 65536);
  for (std::uint32_t v = 0; v < 65536; ++v) {
    data[2 * v] = static_cast<std::uint8_t>(v);
    data[2 * v + 1] = static_cast<std::uint8_t>(v >> 8);
  }
  for (const dtype type : {dtype::bf16, dtype::f16}) {
    const codebook book = from.book(reference, type, data, kind::random_bits);
    for (std::size_t at = 0; at < data.size(); at += 2 * kTileValues) {
      compare_tile(from, type, data.data() + at, book);
      ASSERT_FALSE(HasFatalFailure()) << at;
    }
  }
}

TEST_P(differential, counts) {
  source from(3);
  for (const dtype type : kDtypes) {
    for (const kind k : kKinds) {
      for (const std::size_t n :
           {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{16384}, std::size_t{70001}}) {
        bytes data = from.values(type, n, k);
        data.insert(data.begin(), 3, 0);
        std::array<std::uint64_t, 256> expected = {};
        std::array<std::uint64_t, 256> got = {};
        expected[5] = got[5] = 7;
        reference.count[slot(type)](data.data() + 3, n, expected.data());
        tested.count[slot(type)](data.data() + 3, n, got.data());
        ASSERT_EQ(got, expected) << tersor::to_string(type) << ' ' << static_cast<int>(k) << ' ' << n;
      }
    }
  }
}

std::span<const std::byte> as_bytes(const bytes& b) {
  return std::as_bytes(std::span(b));
}

/// Encodes with both backends at a shifted address and compares the frames byte for byte; returns the frame.
void frames_agree(const std::string& name, dtype type, codec c, const bytes& data, std::size_t offset,
                  bytes& frame) {
  const auto ctx = tersor::context::create(2, name);
  const auto scalar = tersor::context::create(2, "scalar");
  ASSERT_TRUE(ctx && scalar);
  const std::vector<std::uint64_t> shape = {data.size() / tersor::value_bytes(type)};
  const tersor::tensor_view view{.type = type, .shape = shape, .data = as_bytes(data)};
  const tersor::encode_options options{.codec = c, .raw_fallback = false};
  std::vector<std::byte> buffer(offset + tersor::encode_bound(c, type, shape[0]));
  const auto size = tersor::encode_into(*ctx, view, std::span(buffer).subspan(offset), options);
  const auto expected = tersor::encode(*scalar, view, options);
  ASSERT_TRUE(size && expected);
  ASSERT_EQ(*size, expected->size());
  ASSERT_EQ(std::memcmp(buffer.data() + offset, expected->data(), *size), 0);
  std::vector<std::byte> back(offset + data.size());
  ASSERT_TRUE(
      tersor::decode_into(*ctx, std::span(buffer).subspan(offset, *size), std::span(back).subspan(offset)));
  ASSERT_TRUE(data.empty() || std::memcmp(back.data() + offset, data.data(), data.size()) == 0);
  frame.resize(*size);
  std::memcpy(frame.data(), expected->data(), *size);
}

TEST_P(differential, frames_of_every_size) {
  source from(4);
  bytes frame;
  for (const dtype type : kDtypes) {
    for (const codec c : kCodecs) {
      for (const kind k : kKinds) {
        for (const std::size_t n :
             {std::size_t{0}, std::size_t{1}, std::size_t{1025}, std::size_t{8192}, std::size_t{50000}}) {
          frames_agree(GetParam(), type, c, from.values(type, n, k), from.below(65), frame);
          ASSERT_FALSE(HasFatalFailure())
              << tersor::to_string(type) << ' ' << static_cast<int>(k) << ' ' << n;
        }
      }
    }
  }
}

TEST_P(differential, frames_that_bypass_the_caches) {
  constexpr std::size_t kBytes = (std::size_t{4} << 20) + 4 * 1000;
  source from(5);
  bytes frame;
  for (const dtype type : kDtypes) {
    const bytes data = from.values(type, kBytes / tersor::value_bytes(type), kind::heavy_tail);
    for (const std::size_t offset : {std::size_t{0}, std::size_t{48}}) {
      frames_agree(GetParam(), type, offset == 0 ? codec::rank : codec::top16, data, offset, frame);
      ASSERT_FALSE(HasFatalFailure()) << tersor::to_string(type) << ' ' << offset;
    }
  }
}

TEST_P(differential, damaged_frames) {
  source from(6);
  const auto ctx = tersor::context::create(1, GetParam());
  const auto scalar = tersor::context::create(1, "scalar");
  ASSERT_TRUE(ctx && scalar);
  for (const dtype type : kDtypes) {
    for (const codec c : kCodecs) {
      const bytes data = from.values(type, 30000, kind::heavy_tail);
      bytes frame;
      frames_agree(GetParam(), type, c, data, 0, frame);
      ASSERT_FALSE(HasFatalFailure());
      for (int i = 0; i < 40; ++i) {
        bytes bad = frame;
        // Behind header and index, whose digests would stop both backends at once.
        const std::uint32_t first = 128 + 24 * 4;
        bad[first + from.below(static_cast<std::uint32_t>(bad.size()) - first)] ^=
            static_cast<std::uint8_t>(1u << from.below(8));
        std::vector<std::byte> to(data.size());
        const auto got = tersor::decode_into(*ctx, as_bytes(bad), to);
        const auto expected = tersor::decode_into(*scalar, as_bytes(bad), to);
        ASSERT_FALSE(expected);
        ASSERT_FALSE(got);
        EXPECT_EQ(got.error().code, expected.error().code);
        EXPECT_EQ(got.error().chunk, expected.error().chunk);
      }
    }
  }
}

std::vector<std::string> others() {
  std::vector<std::string> names;
  for (const auto& backend : tersor::cpu::all_backends()) {
    if (backend.supported && backend.ops != &tersor::cpu::scalar_ops()) names.emplace_back(backend.ops->name);
  }
  return names;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(differential);
INSTANTIATE_TEST_SUITE_P(backend, differential, testing::ValuesIn(others()),
                         [](const auto& backend) { return backend.param; });

}  // namespace
