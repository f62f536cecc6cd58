// The n-th allocation, or the n-th call of the channel, fails, for every n and on either side: an error,
// nothing lost (LeakSanitizer looks in the asan preset), nothing broken, and the next request is served.
#include <cstdlib>
#include <latch>
#include <new>
#include <thread>

#include <gtest/gtest.h>

#include "support.hpp"
#include "transfer/session/handshake.hpp"

namespace {

/// Allocations until one fails; negative: none fails.
std::atomic<std::int64_t> g_countdown{-1};
/// All further ones fail as well.
std::atomic<bool> g_for_good{false};

bool fails_now() noexcept {
  if (g_countdown.load(std::memory_order_relaxed) < 0) return false;
  const std::int64_t left = g_countdown.fetch_sub(1);
  if (left == 0 && g_for_good) g_countdown = 0;
  return left == 0;
}

void* allocate(std::size_t n) {
  void* p = fails_now() ? nullptr : std::malloc(n == 0 ? 1 : n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

/// Not inlined: compilers warn where they see memory of operator new in free.
[[gnu::noinline]] void release(void* p) noexcept {
  std::free(p);
}

}  // namespace

void* operator new(std::size_t n) {
  return allocate(n);
}
void* operator new[](std::size_t n) {
  return allocate(n);
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return fails_now() ? nullptr : std::malloc(n == 0 ? 1 : n);
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return fails_now() ? nullptr : std::malloc(n == 0 ? 1 : n);
}
void operator delete(void* p) noexcept {
  release(p);
}
void operator delete[](void* p) noexcept {
  release(p);
}
void operator delete(void* p, std::size_t) noexcept {
  release(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  release(p);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
  release(p);
}
void operator delete[](void* p, const std::nothrow_t&) noexcept {
  release(p);
}

namespace transfer_test {
namespace {

using namespace std::chrono_literals;

constexpr kv::timeouts kShort{.connect = 300ms, .handshake = 300ms, .message = 300ms, .idle = 300ms};

kv::sender_options sending() {
  return {.timeouts = kShort, .coding = kv::coding::rank, .part_bytes = 2048, .attempts = 1};
}

/// Arms the countdown while it lives; `went_off` then says whether it came to zero.
class failing {
 public:
  failing(std::int64_t n, bool for_good) {
    g_for_good = for_good;
    g_countdown = n;
  }
  ~failing() { stop(); }
  failing(const failing&) = delete;
  failing& operator=(const failing&) = delete;
  bool stop() {
    if (stopped_) return went_off_;
    stopped_ = true;
    const std::int64_t left = g_countdown.exchange(-1);
    went_off_ = left < 0 || (g_for_good && left == 0);
    return went_off_;
  }

 private:
  bool stopped_ = false, went_off_ = false;
};

/// One request over a wire in memory, the n-th allocation of either side failing.
struct outcome {
  bool injected = false, done = false, sure = false;
};

outcome in_memory(bare_receiver& r, std::uint64_t request, std::int64_t n, bool for_good) {
  const cache c = make_cache(request);
  const auto from = c.source();
  auto wire = std::make_shared<memory_wire>();
  auto theirs = memory_wire::end_of(wire, kv::role::receiver);
  auto ours = memory_wire::end_of(wire, kv::role::sender);
  const kv::sender_options options = sending();
  const kv::nonce token = kv::fresh_nonce().value();
  std::latch ready(2);
  std::thread serving([&] {
    ready.arrive_and_wait();
    (void)r.serve(std::move(theirs));
  });
  ready.arrive_and_wait();
  failing armed(n, for_good);
  const attempt a = send_once(std::move(ours), options, c.manifest, *from, token);
  serving.join();
  return {.injected = armed.stop(), .done = a.done.has_value(), .sure = !a.may_be_published};
}

TEST(failing_calls, every_allocation_of_a_session) {
  checking_sink sink;
  bare_receiver r({.timeouts = kShort, .n_slots = 4, .max_part_bytes = 4096, .max_pending = 2}, sink);
  std::uint64_t places = 0, wrong = 0;
  std::uint64_t request = 0;
  for (const bool for_good : {false, true}) {
    // Threads take turns, so the same number meets different calls: several rounds, until none fails any
    // more.
    for (unsigned clean = 0, n = 0; clean < 3 && n < 5'000; ++n) {
      const std::uint64_t before = sink.n_published();
      const outcome o = in_memory(r, ++request, n, for_good);
      const bool there = sink.n_published() > before;
      clean = o.injected ? 0 : clean + 1;
      places += o.injected ? 1U : 0U;
      const bool right = (!o.done || there) && (!there || o.done || !o.sure) && (o.injected || o.done);
      if (!right) {
        ++wrong;
        ADD_FAILURE() << "allocation " << n << (for_good ? " and all after it" : "") << ": done " << o.done
                      << ", published " << there << ", sure " << o.sure;
      }
      r.discard_all();
      if (n % 8 == 7) {
        EXPECT_TRUE(in_memory(r, ++request, -1, false).done) << "after allocation " << n;
      }
    }
  }
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_EQ(sink.n_open(), 0U);
  faults::publish(14, "failing allocations of a transfer in memory", places, wrong, "places");
}

TEST(failing_calls, every_allocation_of_listening_connecting_and_sending) {
  checking_sink sink;
  const kv::receiver_options listening{
      .timeouts = kShort, .n_slots = 4, .max_part_bytes = 4096, .resume = 100ms};
  const kv::sender_options options = sending();
  const kv::endpoint any;
  const holdings before = process_holdings();
  std::uint64_t places = 0, wrong = 0;
  for (const bool for_good : {false, true}) {
    for (unsigned clean = 0, n = 0; clean < 2 && n < 5'000; ++n) {
      const cache c = make_cache(n);
      const auto from = c.source();
      const std::uint64_t published = sink.n_published();
      bool injected = false, done = false, sure = true;
      {
        failing armed(n, for_good);
        auto r = kv::receiver::listen(any, listening, sink);
        if (r) {
          auto s = kv::sender::connect(r->address(), options);
          if (s) {
            const auto sent = s->send(c.manifest, *from);
            done = sent.has_value();
            sure = done || sent.error().message.find("may be") == std::string::npos;
          }
        }
        injected = armed.stop();
      }
      const bool there = sink.n_published() > published;
      clean = injected ? 0 : clean + 1;
      places += injected ? 1U : 0U;
      if ((done && !there) || (there && !done && sure) || (!injected && !done)) {
        ++wrong;
        ADD_FAILURE() << "allocation " << n << (for_good ? " and all after it" : "") << ": done " << done
                      << ", published " << there;
      }
    }
  }
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_EQ(sink.n_open(), 0U);
  EXPECT_TRUE(back_to(before));
  faults::publish(14, "failing allocations of a transfer over TCP", places, wrong, "places");
}

/// Its n-th call fails, and with it every later one.
class failing_channel final : public kv::channel {
 public:
  failing_channel(std::unique_ptr<kv::channel> inner, std::int64_t n) : inner_(std::move(inner)), left_(n) {}
  status send(std::span<const kv::const_bytes> parts, kv::deadline until) override {
    if (left_-- <= 0) return broken();
    return inner_->send(parts, until);
  }
  status receive(std::span<std::byte> dst, kv::deadline until) override {
    if (left_-- <= 0) return broken();
    return inner_->receive(dst, until);
  }
  void shutdown() noexcept override { inner_->shutdown(); }
  std::string peer() const override { return inner_->peer(); }

 private:
  status broken() {
    inner_->shutdown();
    return tersor::fail(tersor::errc::io_error, "put on purpose");
  }
  std::unique_ptr<kv::channel> inner_;
  std::atomic<std::int64_t> left_;
};

TEST(failing_calls, every_call_of_a_channel) {
  checking_sink sink;
  bare_receiver r({.timeouts = kShort, .n_slots = 4, .max_part_bytes = 4096, .max_pending = 2}, sink);
  std::uint64_t places = 0, wrong = 0, request = 0;
  for (const kv::role side : {kv::role::sender, kv::role::receiver}) {
    bool done = false;
    for (std::int64_t n = 0; !done && n < 200; ++n) {
      const cache c = make_cache(++request);
      const auto from = c.source();
      const std::uint64_t before = sink.n_published();
      auto wire = std::make_shared<memory_wire>();
      const auto end = [&](kv::role own) {
        auto whole = memory_wire::end_of(wire, own);
        return own == side ? std::make_unique<failing_channel>(std::move(whole), n) : std::move(whole);
      };
      std::thread serving([&, over = end(kv::role::receiver)]() mutable { (void)r.serve(std::move(over)); });
      const attempt a =
          send_once(end(kv::role::sender), sending(), c.manifest, *from, kv::fresh_nonce().value());
      serving.join();
      const bool there = sink.n_published() > before;
      done = a.done.has_value();
      ++places;
      if ((done && !there) || (there && !done && !a.may_be_published)) {
        ++wrong;
        ADD_FAILURE() << "call " << n << " of side " << static_cast<int>(side) << ": done " << done
                      << ", published " << there;
      }
      r.discard_all();
    }
    EXPECT_TRUE(done);
  }
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_EQ(sink.n_open(), 0U);
  faults::publish(14, "failing calls of a channel", places, wrong, "places");
}

}  // namespace
}  // namespace transfer_test
