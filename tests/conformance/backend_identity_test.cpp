// The encoded bytes depend on the data and the codebook only: not on the instruction set, not on threads.
#include <gtest/gtest.h>

#include "../faults/support.hpp"
#include "../golden/sample_data.hpp"

namespace {

using faults::bytes;
using golden::pattern;
using tersor::codec;
using tersor::dtype;

constexpr dtype kDtypes[] = {dtype::bf16, dtype::f16, dtype::f32, dtype::f8_e4m3, dtype::f8_e5m2};
constexpr pattern kPatterns[] = {pattern::weights,  pattern::clean, pattern::uniform,
                                 pattern::constant, pattern::mixed, pattern::counting};

std::vector<unsigned> thread_counts() {
  std::vector<unsigned> counts;
  for (unsigned n = 1; n <= 64; ++n) {
    if (faults::long_run() || n <= 4 || n == 7 || n == 32 || n == 64) counts.push_back(n);
  }
  return counts;
}

struct reference {
  codec c;
  dtype type;
  bytes data, frame;
};

std::vector<reference> references() {
  std::vector<reference> all;
  const tersor::context ctx = faults::make_context(1, "scalar");
  for (const dtype type : kDtypes) {
    for (const pattern p : kPatterns) {
      // More groups of chunks than one, and a last tile that is not full.
      for (const std::uint64_t n : {std::uint64_t{1500}, std::uint64_t{300'001}}) {
        if (n > 100'000 && type != dtype::bf16 && p != pattern::mixed) continue;
        bytes data = golden::sample(type, n, p, 11);
        for (const codec c : {codec::raw, codec::top16, codec::rank}) {
          all.push_back({c, type, data, faults::encode_data(ctx, c, type, data)});
        }
      }
    }
  }
  return all;
}

TEST(backend_identity, same_bytes_on_every_backend_and_thread_count) {
  const std::vector<reference> all = references();
  std::uint64_t compared = 0;
  std::uint64_t wrong = 0;
  for (const std::string& backend : faults::backend_names()) {
    for (const unsigned threads : thread_counts()) {
      const tersor::context ctx = faults::make_context(threads, backend);
      for (const reference& r : all) {
        ++compared;
        const bool same = faults::encode_data(ctx, r.c, r.type, r.data) == r.frame &&
                          faults::decode_verdict(ctx, r.frame) == faults::verdict{.data = r.data};
        if (!same) ++wrong;
        EXPECT_TRUE(same) << backend << ' ' << threads << " threads " << to_string(r.c) << ' '
                          << to_string(r.type);
      }
    }
  }
  faults::publish(2, "scalar, 1 thread against every backend and thread count", compared, wrong, "frames");
}

TEST(backend_identity, same_histogram_and_digest) {
  const tersor::context scalar = faults::make_context(1, "scalar");
  for (const std::string& backend : faults::backend_names()) {
    for (const unsigned threads : {1U, 5U}) {
      const tersor::context ctx = faults::make_context(threads, backend);
      for (const std::uint64_t n : {0U, 1U, 2047U, 2048U, 2049U, 100'003U}) {
        const bytes data = golden::sample(dtype::u8, n, pattern::uniform, n);
        for (std::uint8_t domain = 0; domain < 5; ++domain) {
          EXPECT_EQ(tersor::digest_bytes(ctx, domain, data), tersor::digest_bytes(scalar, domain, data));
        }
      }
    }
  }
}

}  // namespace
