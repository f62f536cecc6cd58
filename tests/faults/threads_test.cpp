// Many threads on shared and on their own contexts. In the tsan preset ThreadSanitizer watches; elsewhere
// results count.
#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "support.hpp"

namespace {

using faults::bytes;
using tersor::codec;
using tersor::dtype;

constexpr unsigned kThreads = 64;

struct sample {
  codec c;
  bytes data, frame;
};

std::vector<sample> samples() {
  std::vector<sample> all;
  const tersor::context ctx = faults::make_context(1, "scalar");
  for (const codec c : {codec::raw, codec::top16, codec::rank}) {
    bytes data = faults::mixed_values(dtype::bf16, 150'001, 4);
    bytes frame = faults::encode_data(ctx, c, dtype::bf16, data);
    all.push_back({c, std::move(data), std::move(frame)});
  }
  return all;
}

/// Encodes, decodes and fails to decode, and says whether all was right.
bool work(const tersor::context& ctx, const sample& s) {
  if (faults::encode_data(ctx, s.c, dtype::bf16, s.data) != s.frame) return false;
  const auto whole = tersor::decode(ctx, s.frame);
  if (!whole || whole->data != s.data) return false;
  bytes part(8192 * 2);
  if (!tersor::decode_chunks(ctx, s.frame, 3, 1, part)) return false;
  bytes damaged = s.frame;
  damaged[damaged.size() / 2] ^= std::byte{1};
  const auto refused = tersor::decode(ctx, damaged);
  return !refused && refused.error().code == tersor::errc::digest_mismatch &&
         tersor::inspect(s.frame)->n_values == 150'001 && !tersor::backends().empty();
}

/// Runs `body(i)` on 64 threads; returns how many said false.
template <class Body>
unsigned run_threads(const Body& body) {
  std::atomic<unsigned> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      if (!body(i)) ++wrong;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return wrong;
}

TEST(threads, share_one_context) {
  const std::vector<sample> all = samples();
  const unsigned rounds = faults::long_run() ? 20 : 1;
  unsigned wrong = 0;
  for (const unsigned workers : {1U, 4U, kThreads}) {
    const tersor::context ctx = faults::make_context(workers);
    for (unsigned round = 0; round < rounds; ++round) {
      wrong += run_threads([&](unsigned i) { return work(ctx, all[i % all.size()]); });
    }
  }
  EXPECT_EQ(wrong, 0U);
  faults::publish(20, "64 threads on a shared context", std::uint64_t{rounds} * 3 * kThreads, wrong,
                  "thread runs");
}

TEST(threads, have_their_own_contexts) {
  const std::vector<sample> all = samples();
  const unsigned rounds = faults::long_run() ? 20 : 1;
  unsigned wrong = 0;
  for (unsigned round = 0; round < rounds; ++round) {
    wrong += run_threads([&](unsigned i) {
      const auto names = faults::backend_names();
      const tersor::context ctx = faults::make_context(1 + i % 3, names[i % names.size()]);
      return work(ctx, all[i % all.size()]);
    });
  }
  EXPECT_EQ(wrong, 0U);
  faults::publish(20, "64 threads with contexts of their own", std::uint64_t{rounds} * kThreads, wrong,
                  "thread runs");
}

}  // namespace
