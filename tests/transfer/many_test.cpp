// Many transfers: 64 senders at one receiver (ThreadSanitizer looks in the tsan preset), and many one after
// another, after which the process holds what it held before.
#include <thread>

#include <gtest/gtest.h>

#include "tcp_proxy.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kClients = 64;

kv::receiver_options receiving() {
  return {
      .max_part_bytes = 4096, .max_connections = 2 * kClients, .max_pending = 2 * kClients, .resume = 500ms};
}

TEST(many_transfers, from_64_senders_at_once) {
  checking_sink sink;
  auto r = kv::receiver::listen({}, receiving(), sink);
  ASSERT_TRUE(r);
  const unsigned rounds = faults::long_run() ? 50 : 4;
  std::atomic<std::uint64_t> failed = 0;
  std::vector<std::thread> clients;
  for (unsigned i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      auto s =
          kv::sender::connect(r->address(), {.coding = static_cast<kv::coding>(i % 4), .part_bytes = 2048});
      for (unsigned round = 0; round < rounds; ++round) {
        const cache c = make_cache((std::uint64_t{i} << 32) + round, 1 + round % 2);
        if (!s || !s->send(c.manifest, *c.source())) ++failed;
      }
    });
  }
  // Somebody looks at it all the while.
  std::atomic<bool> over = false;
  std::thread watching([&] {
    while (!over) {
      (void)r->counters();
      (void)r->last_error();
      std::this_thread::sleep_for(1ms);
    }
  });
  for (std::thread& t : clients) t.join();
  over = true;
  watching.join();
  EXPECT_EQ(failed, 0U);
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_EQ(sink.n_published(), std::uint64_t{kClients} * rounds);
  faults::publish(20, "64 senders at one receiver", std::uint64_t{kClients} * rounds, failed + sink.n_wrong(),
                  "transfers");
}

TEST(many_transfers, whose_connections_break_and_are_cancelled) {
  checking_sink sink;
  kv::receiver_options options = receiving();
  options.timeouts = {.handshake = 2'000ms, .message = 1'000ms, .idle = 1'000ms};
  auto r = kv::receiver::listen({}, options, sink);
  ASSERT_TRUE(r);
  const unsigned rounds = faults::long_run() ? 60 : 5;
  std::atomic<std::uint64_t> lies = 0;
  std::vector<std::thread> clients;
  for (unsigned i = 0; i < 16; ++i) {
    clients.emplace_back([&, i] {
      dice random(i);
      tcp_proxy proxy(r->address());
      for (unsigned round = 0; round < rounds; ++round) {
        proxy.cut_next({.from = static_cast<kv::role>(random.below(2)), .after = 300 + random.below(14'000)});
        std::atomic<bool> cancel = false;
        kv::sender_options with{.part_bytes = 2048, .attempts = 2};
        with.timeouts = options.timeouts;
        with.cancel = &cancel;
        auto s = kv::sender::connect(proxy.address(), with);
        if (!s) continue;
        const cache c = make_cache((std::uint64_t{i} << 32) + round);
        std::thread canceller([&] {
          std::this_thread::sleep_for(
              std::chrono::microseconds(random.below(round % 3 == 0 ? 3'000 : 200'000)));
          cancel = true;
        });
        const auto sent = s->send(c.manifest, *c.source());
        canceller.join();
        if (sent) (void)sent->parts;
      }
    });
  }
  for (std::thread& t : clients) t.join();
  r->stop();
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_EQ(sink.n_open(), 0U);
  faults::publish(20, "senders whose connections break or who give up", std::uint64_t{16} * rounds,
                  sink.n_wrong() + lies, "transfers");
}

TEST(many_transfers, leave_nothing_behind) {
  checking_sink sink;
  auto r = kv::receiver::listen({}, receiving(), sink);
  ASSERT_TRUE(r);
  const std::uint64_t n = (faults::long_run() ? 100'000 : 2'000) / faults::slowness();
  std::optional<kv::sender> s;
  std::optional<holdings> before;
  std::uint64_t failed = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    if (i % 50 == 0) s.reset();
    if (!s) {
      auto made = kv::sender::connect(r->address(), {.part_bytes = 2048});
      ASSERT_TRUE(made) << made.error().describe();
      s.emplace(std::move(*made));
    }
    const cache c = make_cache(i);
    if (!s->send(c.manifest, *c.source())) ++failed;
    // Past the published requests that the receiver remembers in the long run.
    if (i == n / 10) {
      s.reset();
      std::this_thread::sleep_for(500ms);
      before = process_holdings();
    }
  }
  s.reset();
  ASSERT_TRUE(before);
  EXPECT_TRUE(back_to(*before));
  EXPECT_EQ(failed, 0U);
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_EQ(sink.n_published(), n);
  const std::uint64_t grown =
      process_holdings().rss_kib - std::min(process_holdings().rss_kib, before->rss_kib);
  if (faults::slowness() == 1) {
    EXPECT_LT(grown, 16U * 1024);
  }
  faults::publish(26, "transfers one after another, KiB grown: " + std::to_string(grown), n,
                  failed + sink.n_wrong(), "transfers");
}

}  // namespace
}  // namespace transfer_test
