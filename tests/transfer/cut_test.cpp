// The connection ends, or falls silent, after every byte of a transfer in either direction: no hang, nothing
// published that is not complete, nothing left, and the next request is served.
#include <gtest/gtest.h>

#include "tcp_proxy.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kParts = 6;
constexpr auto kNoHang = 10s;

kv::timeouts limit(std::chrono::milliseconds each) {
  return {.connect = 2'000ms, .handshake = each, .message = each, .idle = each};
}

kv::receiver_options receiving(std::chrono::milliseconds each) {
  return {.timeouts = limit(each), .max_part_bytes = 4096, .resume = 2'000ms};
}

kv::sender_options sending(unsigned attempts, std::chrono::milliseconds each) {
  return {.timeouts = limit(each), .coding = kv::coding::rank, .part_bytes = 2048, .attempts = attempts};
}

/// A receiver behind a proxy.
class cuts : public testing::Test {
 protected:
  void SetUp() override {
    r.emplace(kv::receiver::listen({}, receiving(patience), sink).value());
    proxy.emplace(r->address());
    // Which lengths there are.
    const cache c = make_cache(next);
    auto s = kv::sender::connect(proxy->address(), sending(1, patience));
    ASSERT_TRUE(s);
    ASSERT_TRUE(s->send(c.manifest, *c.source()));
    ++next;
    to_receiver = proxy->passed(kv::role::sender);
    to_sender = proxy->passed(kv::role::receiver);
    ASSERT_GT(to_receiver, 6'000U);
    before = process_holdings();
  }

  /// Every length in the long run; else those around a message's ends in this direction, and a sample.
  std::vector<std::uint64_t> lengths(kv::role from, std::uint64_t step) const {
    const std::uint64_t all = from == kv::role::sender ? to_receiver : to_sender;
    std::vector<std::uint64_t> taken;
    for (std::uint64_t n = 0; n <= all; n += step) taken.push_back(n);
    for (std::uint64_t back = 0; back < 4; ++back) taken.push_back(all - back * kv::kHeaderBytes);
    return taken;
  }

  /// Sends one request over a connection that is cut, and says what is wrong with how it ended.
  std::string send_over(const tcp_proxy::cut& where, unsigned attempts,
                        kv::transfer_report* report = nullptr) {
    const cache c = make_cache(next++);
    const std::uint64_t published = sink.n_published();
    proxy->cut_next(where);
    const auto start = kv::clock::now();
    auto s = kv::sender::connect(proxy->address(), sending(attempts, patience));
    std::string wrong;
    if (s) {
      const auto sent = s->send(c.manifest, *c.source());
      const bool there = sink.n_published() > published;
      if (sent && !there) wrong = "said to be published, and is not";
      if (sent && report != nullptr) *report = *sent;
      if (!sent && there && sent.error().message.find("may be published") == std::string::npos) {
        wrong = "published, and the sender does not know: " + sent.error().describe();
      }
      if (!sent && attempts > 1) wrong = "not taken up again: " + sent.error().describe();
    }
    if (kv::clock::now() - start > kNoHang) wrong += " took too long";
    return wrong;
  }

  std::chrono::milliseconds patience = 3'000ms;
  checking_sink sink;
  std::optional<kv::receiver> r;
  std::optional<tcp_proxy> proxy;
  std::uint64_t next = 1, to_receiver = 0, to_sender = 0;
  holdings before;
};

TEST_F(cuts, after_every_byte) {
  std::uint64_t n = 0, wrong = 0;
  for (const kv::role from : {kv::role::sender, kv::role::receiver}) {
    const std::uint64_t step =
        faults::long_run() ? 1 : (from == kv::role::sender ? 43 : 11) * faults::slowness();
    for (const std::uint64_t after : lengths(from, step)) {
      ++n;
      const std::string what = send_over({.from = from, .after = after}, 1);
      if (what.empty()) continue;
      ++wrong;
      ADD_FAILURE() << "cut after " << after << " bytes of side " << static_cast<int>(from) << ": " << what;
    }
    // The survivors go on.
    EXPECT_EQ(send_over({}, 1), "");
  }
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_TRUE(back_to(before));
  faults::publish(26, "connections cut after byte n", n, wrong + sink.n_wrong(), "cuts");
  const auto until = kv::clock::now() + 6s;
  while (sink.n_open() > 0 && kv::clock::now() < until) std::this_thread::sleep_for(20ms);
  EXPECT_EQ(sink.n_open(), 0U) << "requests that nobody came back for";
}

TEST_F(cuts, are_taken_up_again_and_no_part_is_decoded_twice) {
  const std::uint64_t step = (faults::long_run() ? 7 : 500) * faults::slowness();
  std::uint64_t n = 0, wrong = 0;
  for (const kv::role from : {kv::role::sender, kv::role::receiver}) {
    for (const std::uint64_t after : lengths(from, from == kv::role::sender ? step : step / 4)) {
      const std::uint64_t decoded = sink.n_decoded(), published = sink.n_published();
      kv::transfer_report report;
      const std::string what = send_over({.from = from, .after = after}, 3, &report);
      if (what.empty() && report.parts == 0) continue;  // cut in the first handshake: no request
      ++n;
      const bool right = what.empty() && sink.n_decoded() - decoded == kParts &&
                         sink.n_published() - published == 1 && report.resumptions <= 1 &&
                         report.parts <= 2 * kParts;
      if (right) continue;
      ++wrong;
      ADD_FAILURE() << "cut after " << after << " bytes of side " << static_cast<int>(from) << ": " << what
                    << "; " << sink.n_decoded() - decoded << " parts decoded, " << report.resumptions
                    << " resumptions";
    }
  }
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_TRUE(back_to(before));
  faults::publish(26, "cut transfers taken up again", n, wrong + sink.n_wrong(), "cuts");
}

class silences : public cuts {
 protected:
  silences() { patience = 400ms; }
};

TEST_F(silences, end_in_time) {
  const std::uint64_t step = (faults::long_run() ? 150 : 2'500) * faults::slowness();
  std::uint64_t n = 0, wrong = 0;
  for (const kv::role from : {kv::role::sender, kv::role::receiver}) {
    for (const std::uint64_t after : lengths(from, from == kv::role::sender ? step : step / 4)) {
      ++n;
      const std::string what =
          send_over({.from = from, .after = after, .how = tcp_proxy::manner::silence}, 1);
      if (what.empty()) continue;
      ++wrong;
      ADD_FAILURE() << "silence after " << after << " bytes of side " << static_cast<int>(from) << ": "
                    << what;
    }
  }
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_TRUE(back_to(before));
  faults::publish(26, "peers that fall silent after byte n", n, wrong + sink.n_wrong(), "cuts");
}

TEST(cut_connections, one_connection_at_a_time_is_enough_to_come_back) {
  checking_sink sink;
  kv::receiver_options options = receiving(3'000ms);
  options.max_connections = 1;
  auto r = kv::receiver::listen({}, options, sink);
  ASSERT_TRUE(r);
  tcp_proxy proxy(r->address());
  proxy.cut_next({.from = kv::role::sender, .after = 6'000});
  auto s = kv::sender::connect(proxy.address(), sending(4, 3'000ms));
  ASSERT_TRUE(s) << s.error().describe();
  for (std::uint64_t request = 1; request <= 5; ++request) {
    // Each connection ends within the request after the one that it began with.
    proxy.cut_next({.from = kv::role::sender, .after = 12'000});
    const cache c = make_cache(request);
    const auto sent = s->send(c.manifest, *c.source());
    EXPECT_TRUE(sent) << sent.error().describe();
  }
  EXPECT_EQ(sink.n_published(), 5U);
}

}  // namespace
}  // namespace transfer_test
