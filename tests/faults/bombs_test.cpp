// Sizes that are only declared: nothing is allocated for them. And sizes around 2^31, 2^32 and 2^64.
#include <cstring>

#include <gtest/gtest.h>

#include "core/bytes.hpp"
#include "safetensors/header.hpp"
#include "support.hpp"
#include <tersor/model.hpp>

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;
using tersor::errc;

/// What a hostile input may cost beyond its own size (spec/frame.md "Reading": at most twice the bytes at
/// hand).
/// A sanitizer keeps freed memory for a while.
constexpr std::uint64_t kSlackKib = faults::slowness() > 1 ? 65'536 : 2048;

/// Runs `body` and returns by how much the resident set grew at most.
template <class Body>
std::uint64_t growth_kib(const Body& body) {
  faults::reset_peak();
  const std::uint64_t before = faults::peak_kib();
  body();
  return faults::peak_kib() - before;
}

TEST(bombs, a_frame_that_declares_much_costs_nothing) {
  const tersor::context ctx = faults::make_context();
  std::uint64_t tried = 0;
  std::uint64_t worst = 0;
  for (const codec c : {codec::raw, codec::top16, codec::rank}) {
    const bytes good = faults::encode_data(ctx, c, dtype::bf16, faults::mixed_values(dtype::bf16, 5000, 1));
    for (unsigned shift = 13; shift < 64; ++shift, ++tried) {
      bytes bomb = good;
      auto* p = reinterpret_cast<std::uint8_t*>(bomb.data());
      tersor::core::store_le<std::uint64_t>(p + 16, std::uint64_t{1} << shift);
      tersor::core::store_le<std::uint64_t>(p + 64, std::uint64_t{1} << shift);
      faults::reseal(bomb);
      worst = std::max(worst, growth_kib([&] {
                         EXPECT_FALSE(tersor::decode(ctx, bomb));
                         EXPECT_FALSE(tersor::inspect(bomb));
                       }));
    }
    for (unsigned shift = 8; shift < 64; ++shift, ++tried) {
      bytes bomb = good;
      tersor::core::store_le<std::uint64_t>(bomb.data() + 24, std::uint64_t{1} << shift);
      faults::reseal(bomb);
      worst = std::max(worst, growth_kib([&] { EXPECT_FALSE(tersor::decode(ctx, bomb)); }));
    }
  }
  EXPECT_LE(worst, kSlackKib);
  faults::publish(11, "frames that declare up to 2^63 values, KiB allocated at most " + std::to_string(worst),
                  tried, worst > kSlackKib ? 1 : 0, "frames");
}

TEST(bombs, a_header_that_declares_much_costs_nothing) {
  const faults::temp_dir dir;
  const auto path = dir.path() / "bomb.safetensors";
  const tersor::context ctx = faults::make_context();
  std::uint64_t tried = 0;
  std::uint64_t worst = 0;
  const auto attempt = [&](const bytes& file) {
    faults::write_file(path, file);
    for (const auto mode : {tersor::read_mode::mmap, tersor::read_mode::pread}) {
      ++tried;
      worst = std::max(worst, growth_kib([&] {
                         EXPECT_FALSE(tersor::inspect_model(path, {.read = mode}));
                         EXPECT_FALSE(tersor::verify(ctx, path, std::nullopt, {.read = mode}));
                         EXPECT_FALSE(tersor::decompress(ctx, path, dir.path() / "out", {.read = mode}));
                       }));
    }
  };
  for (unsigned shift = 4; shift < 64; ++shift) {
    bytes file(16, std::byte{'{'});
    tersor::core::store_le<std::uint64_t>(file.data(), std::uint64_t{1} << shift);
    attempt(file);
  }
  for (const std::uint64_t n : {99'999'999U, 100'000'000U, 100'000'001U}) {
    bytes file(64, std::byte{'['});
    tersor::core::store_le<std::uint64_t>(file.data(), n);
    attempt(file);
  }
  // Deep nesting and endless digits in a header that is really there.
  for (const char c : {'[', '{', '9', '"'}) {
    std::string json = R"({"a":)" + std::string(200'000, c);
    bytes file(8 + json.size());
    tersor::core::store_le<std::uint64_t>(file.data(), json.size());
    std::memcpy(file.data() + 8, json.data(), json.size());
    attempt(file);
  }
  // Reading 200 kB may copy it a few times.
  EXPECT_LE(worst, kSlackKib + 4 * 200);
  faults::publish(11, "headers that declare up to 2^63 bytes, KiB allocated at most " + std::to_string(worst),
                  tried, worst > kSlackKib + 800 ? 1 : 0, "headers");
}

TEST(bombs, bounds_are_right_around_the_powers_of_two) {
  std::uint64_t tried = 0;
  for (const dtype type :
       {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2, dtype::u8, dtype::f64}) {
    for (const codec c : {codec::raw, codec::top16, codec::rank}) {
      std::uint64_t last = 0;
      for (const unsigned shift : {30U, 31U, 32U, 33U, 40U, 48U, 55U}) {
        for (const std::int64_t around : {-1024, -1, 0, 1, 1024}) {
          const std::uint64_t n = (std::uint64_t{1} << shift) + static_cast<std::uint64_t>(around);
          const std::uint64_t bound = tersor::encode_bound(c, type, n);
          const std::uint64_t raw = n * tersor::value_bytes(type);
          EXPECT_GE(bound, raw + 128) << to_string(type) << ' ' << n;
          EXPECT_LE(bound, raw + raw / 100 + 65'536) << to_string(type) << ' ' << n;
          EXPECT_EQ(bound % 128, 0U);
          EXPECT_GE(bound, last);
          last = bound;
          ++tried;
        }
      }
      for (const std::uint64_t n :
           {~std::uint64_t{0}, std::uint64_t{1} << 63, (std::uint64_t{1} << 63) - 1}) {
        EXPECT_EQ(tersor::encode_bound(c, type, n), 0U);
        ++tried;
      }
    }
  }
  faults::publish(16, "size arithmetic around 2^30 .. 2^64", tried, 0, "sizes");
}

}  // namespace
