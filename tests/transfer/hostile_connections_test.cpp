// Connections that mean no good: slow, silent, many, without a key or without sense. They are closed, while
// others are served.
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hostile.hpp"
#include "tcp_proxy.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;
using tersor::codec;

const kv::nonce kToken = kv::fresh_nonce().value();

/// Sends its first messages whole and the rest one byte at a time.
class slow_channel final : public kv::channel {
 public:
  slow_channel(std::unique_ptr<kv::channel> inner, int whole) : inner_(std::move(inner)), whole_(whole) {}
  status send(std::span<const kv::const_bytes> parts, kv::deadline until) override {
    if (whole_-- > 0) return inner_->send(parts, until);
    for (const kv::const_bytes p : parts) {
      for (const std::byte& b : p) {
        const kv::const_bytes one(&b, 1);
        TERSOR_CHECK(inner_->send({&one, 1}, kv::clock::now() + 1s));
        std::this_thread::sleep_for(20ms);
      }
    }
    return {};
  }
  status receive(std::span<std::byte> dst, kv::deadline until) override {
    return inner_->receive(dst, until);
  }
  void shutdown() noexcept override { inner_->shutdown(); }
  std::string peer() const override { return inner_->peer(); }

 private:
  std::unique_ptr<kv::channel> inner_;
  int whole_;
};

/// True if the receiver closes within the time.
bool closes(int fd, std::chrono::milliseconds within) {
  const auto until = kv::clock::now() + within;
  std::array<std::byte, 4096> ignored;
  while (kv::clock::now() < until) {
    ::pollfd wait = {fd, POLLIN, 0};
    if (::poll(&wait, 1, 20) > 0 && ::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT) <= 0)
      return true;
  }
  return false;
}

TEST_F(hostile, slow_loris_in_every_state) {
  listen(hostile_receiving());
  honest_sender honest(*r, hostile_sending());
  const cache c = make_cache(1);
  const prepared& all = prepared_parts(1, codec::rank);
  std::atomic<std::uint64_t> closed = 0;
  std::vector<std::thread> lorises;
  constexpr int kStates = 6;  // hello, offer, begin, part, end, silence after a byte
  for (int whole = 0; whole < kStates; ++whole) {
    lorises.emplace_back([&, whole] {
      const auto start = kv::clock::now();
      if (whole == 5) {
        const int fd = connect_loopback(r->address().port);
        (void)::send(fd, "T", 1, MSG_NOSIGNAL);
        closed += closes(fd, kPatience) ? 1U : 0U;
        ::close(fd);
        return;
      }
      puppet_sender p(std::make_unique<slow_channel>(dial(*r), whole), hostile_sending());
      cache own = c;
      own.manifest.request = 8 * static_cast<std::uint64_t>(whole) + 1;
      if (p.shake()) {
        p.begin(own, kToken, 1);
        for (std::size_t i = 0; i < 6 && whole > 2; ++i) p.send_part(own, all, i, 1);
        p.end(own, all, 1);
        EXPECT_FALSE(p.wait_for(kv::message_type::published, kPatience)) << whole;
      }
      closed += kv::clock::now() - start < kPatience ? 1U : 0U;
    });
  }
  for (std::thread& t : lorises) t.join();
  honest.stop();
  EXPECT_EQ(closed, static_cast<std::uint64_t>(kStates));
  EXPECT_EQ(honest.n_failed(), 0U);
  EXPECT_GT(honest.n_sent(), 10U);
  faults::publish(28, "slow-loris, a state each", kStates, kStates - closed + honest.n_failed(), "peers");
}

TEST_F(hostile, silent_connections_give_way) {
  kv::receiver_options options = hostile_receiving();
  options.max_connections = 8;
  listen(options);
  honest_sender honest(*r, hostile_sending());
  const std::uint64_t n = faults::long_run() ? 900 : 100;
  faults::reset_peak();
  const std::uint64_t kib = faults::peak_kib();
  std::vector<int> fds;
  for (std::uint64_t i = 0; i < n; ++i) fds.push_back(connect_loopback(r->address().port));
  // Somebody new gets in as soon as the handshakes of the silent ones have run out.
  std::optional<kv::sender> late;
  const auto until = kv::clock::now() + 10s;
  while (!late && kv::clock::now() < until) {
    if (auto made = kv::sender::connect(r->address(), hostile_sending())) late.emplace(std::move(*made));
  }
  ASSERT_TRUE(late);
  const cache c = make_cache(5);
  EXPECT_TRUE(late->send(c.manifest, *c.source()));
  std::uint64_t open = 0;
  for (const int fd : fds) {
    open += closes(fd, kPatience) ? 0U : 1U;
    ::close(fd);
  }
  honest.stop();
  EXPECT_EQ(open, 0U);
  EXPECT_EQ(honest.n_failed(), 0U);
  EXPECT_GT(honest.n_sent(), 0U);
  if (faults::slowness() == 1) {
    EXPECT_LT(faults::peak_kib(), kib + 16 * 1024);
  }
  faults::publish(28, "silent connections beyond max_connections", n, open + honest.n_failed(), "peers");
}

TEST_F(hostile, garbage_instead_of_a_hello) {
  listen(hostile_receiving());
  honest_sender honest(*r, hostile_sending());
  dice random(9);
  const std::uint64_t n = (faults::long_run() ? 20'000 : 300) / faults::slowness();
  std::uint64_t open = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    bytes data(1 + random.below(400));
    for (std::byte& b : data) b = static_cast<std::byte>(random.next());
    // Some know the first bytes.
    if (i % 3 == 0 && data.size() > 4) std::memcpy(data.data(), "TKV1", 4);
    if (i % 7 == 0)
      std::memcpy(data.data(), "GET / HTTP/1.1\r\n\r\n", std::min<std::size_t>(data.size(), 18));
    if (data.size() < kv::kHeaderBytes) data.resize(kv::kHeaderBytes);
    const int fd = connect_loopback(r->address().port);
    (void)::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    open += closes(fd, kPatience) ? 0U : 1U;
    ::close(fd);
  }
  honest.stop();
  EXPECT_EQ(open, 0U);
  EXPECT_EQ(honest.n_failed(), 0U);
  EXPECT_GT(honest.n_sent(), 0U);
  faults::publish(28, "garbage instead of a hello", n, open + honest.n_failed(), "peers");
}

TEST_F(hostile, without_the_key) {
  if (!has_keys()) GTEST_SKIP() << "no OpenSSL in this build";
  kv::receiver_options options = hostile_receiving();
  options.security = {.psk = psk_of("a key of the tests only"), .tenant = "a"};
  listen(options);
  kv::sender_options right = hostile_sending();
  right.security = options.security;
  honest_sender honest(*r, right);
  const std::uint64_t n = (faults::long_run() ? 3'000 : 100) / faults::slowness();
  std::uint64_t accepted = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    kv::sender_options wrong = right;
    if (i % 4 == 0) wrong.security.psk.clear();
    if (i % 4 == 1) wrong.security.psk.back() ^= std::byte{1};
    if (i % 4 == 2) wrong.security.psk.push_back(std::byte{0});
    if (i % 4 == 3) wrong.security.tenant = "b";
    accepted += kv::sender::connect(r->address(), wrong) ? 1U : 0U;
  }
  honest.stop();
  EXPECT_EQ(accepted, 0U);
  EXPECT_EQ(honest.n_failed(), 0U);
  faults::publish(28, "senders without the key or the tenant's salt", n, accepted + honest.n_failed(),
                  "peers");
}

}  // namespace
}  // namespace transfer_test
