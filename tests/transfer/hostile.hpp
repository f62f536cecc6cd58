// What the tests of hostile senders share: a receiver on loopback, and an honest sender that must not notice.
#pragma once

#include <thread>

#include <gtest/gtest.h>

#include "puppet.hpp"
#include "transfer/session/handshake.hpp"

namespace transfer_test {

inline constexpr std::chrono::milliseconds kPatience{10'000};

inline kv::receiver_options hostile_receiving() {
  using namespace std::chrono_literals;
  return {.timeouts = {.connect = 2'000ms, .handshake = 1'000ms, .message = 1'000ms, .idle = 2'000ms},
          .max_part_bytes = 8192,
          .resume = 300ms};
}

inline kv::sender_options hostile_sending() {
  return {.part_bytes = kPartBytes};
}

inline std::unique_ptr<kv::channel> dial(const kv::receiver& r) {
  return kv::find_transport("tcp")
      .value()
      ->connect(r.address(), kv::clock::now() + std::chrono::seconds(2))
      .value();
}

/// Sends requests all the time, and counts those that failed.
class honest_sender {
 public:
  honest_sender(const kv::receiver& r, kv::sender_options options)
      : to_(r.address()), options_(std::move(options)) {
    auto made = kv::sender::connect(to_, options_);
    EXPECT_TRUE(made) << made.error().describe();
    if (!made) return;
    sender_.emplace(std::move(*made));
    works_ = std::thread([this] {
      for (std::uint64_t request = std::uint64_t{1} << 40; !stop_; ++request) {
        const cache c = make_cache(request);
        if (sender_->send(c.manifest, *c.source())) {
          ++sent_;
        } else {
          ++failed_;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    });
  }
  ~honest_sender() { stop(); }
  void stop() {
    stop_ = true;
    if (works_.joinable()) works_.join();
  }
  [[nodiscard]] std::uint64_t n_sent() const { return sent_; }
  [[nodiscard]] std::uint64_t n_failed() const { return failed_; }

 private:
  kv::endpoint to_;
  kv::sender_options options_;
  std::optional<kv::sender> sender_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> sent_{0}, failed_{0};
  std::thread works_;
};

class hostile : public testing::Test {
 protected:
  void listen(const kv::receiver_options& options) {
    auto made = kv::receiver::listen({}, options, sink);
    ASSERT_TRUE(made) << made.error().describe();
    r.emplace(std::move(*made));
  }
  void TearDown() override {
    EXPECT_EQ(sink.n_wrong(), 0U);
    r.reset();
    EXPECT_EQ(sink.n_open(), 0U);
    EXPECT_TRUE(back_to(before));
  }
  holdings before = process_holdings();
  checking_sink sink;
  std::optional<kv::receiver> r;
};

}  // namespace transfer_test
