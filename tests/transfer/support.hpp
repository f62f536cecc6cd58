// What the transfer tests share: small caches, a sink that compares what it publishes, channels in memory,
// and what the process holds.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "../faults/support.hpp"
#include "transfer/session/connection.hpp"

namespace transfer_test {

using faults::bytes;
using tersor::result;
using tersor::status;
namespace kv = tersor::transfer;

/// One thread; shared by all tests.
[[nodiscard]] const tersor::context& shared_context();

/// A request and its data.
struct cache {
  kv::manifest manifest;
  std::vector<bytes> data;
  [[nodiscard]] std::vector<std::span<const std::byte>> spans() const { return {data.begin(), data.end()}; }
  [[nodiscard]] std::unique_ptr<kv::source> source() const {
    return kv::make_host_source(shared_context(), spans());
  }
};

/// K and V of `layers` layers of BF16, `pages` pages of 2 KiB each. What a request holds follows from its
/// number: eight different contents.
[[nodiscard]] cache make_cache(std::uint64_t request, std::uint32_t layers = 1, std::uint64_t pages = 3);
[[nodiscard]] const std::vector<bytes>& expected_data(std::uint64_t request, std::uint32_t layers,
                                                      std::uint64_t pages);

/// Keeps requests until they are published, and then compares them with make_cache of the same number.
class checking_sink : public kv::sink {
 public:
  explicit checking_sink(std::uint64_t max_open_bytes = std::uint64_t{1} << 30) : max_(max_open_bytes) {}

  [[nodiscard]] status prepare(const kv::manifest& m) override;
  [[nodiscard]] status decode(const kv::manifest& m, const kv::part& p,
                              std::span<const std::byte> frame) override;
  [[nodiscard]] status publish(const kv::manifest& m) override;
  void discard(const kv::manifest& m) noexcept override;

  [[nodiscard]] std::uint64_t n_published() const { return published_; }
  [[nodiscard]] std::uint64_t n_wrong() const { return wrong_; }
  [[nodiscard]] std::uint64_t n_decoded() const { return decoded_; }
  [[nodiscard]] std::size_t n_open() const;
  /// Called from publish, with the request's number.
  std::function<void(std::uint64_t)> on_publish = {};

 private:
  struct open_request {
    std::vector<bytes> regions;
    std::uint64_t n_bytes = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::uint64_t, open_request> open_;
  std::uint64_t max_, held_ = 0;
  std::atomic<std::uint64_t> published_{0}, wrong_{0}, decoded_{0};
};

/// What one end sends in one call, which is one message, and what the other end gets instead. An empty
/// message ends the stream.
using message_hook = std::function<std::vector<bytes>(bytes)>;

/// A connection in memory.
class memory_wire {
 public:
  [[nodiscard]] static std::unique_ptr<kv::channel> end_of(std::shared_ptr<memory_wire> wire, kv::role own,
                                                           message_hook hook = {});
  /// Appends to what `to` will read.
  void push(kv::role to, std::span<const std::byte> data);
  /// `to` reads what is there and then the end of the stream.
  void finish(kv::role to);

 private:
  friend class memory_channel;
  struct direction {
    std::mutex mutex;
    std::condition_variable wake;
    std::vector<std::byte> data;
    std::size_t taken = 0;
    bool finished = false, closed = false;
  };
  [[nodiscard]] direction& into(kv::role to) { return ways_[static_cast<std::size_t>(to)]; }
  std::array<direction, 2> ways_;
};

/// A receiver without sockets: the requests, and one connection a call.
class bare_receiver {
 public:
  bare_receiver(kv::receiver_options options, kv::sink& to)
      : options_(std::move(options)), to_(to), requests_(options_, to_) {}
  [[nodiscard]] status serve(std::unique_ptr<kv::channel> over);
  void discard_all() { (void)requests_.discard_all(); }
  [[nodiscard]] kv::transfer_counters counters() const { return counters_.read(); }

 private:
  kv::receiver_options options_;
  kv::sink& to_;
  kv::shared_counters counters_;
  kv::pending_requests requests_;
};

/// One attempt of a sender over any channel, as sender::send makes it.
struct attempt {
  status done;
  bool may_be_published = false, may_resume = false;
  kv::transfer_report report;
};
[[nodiscard]] attempt send_once(std::unique_ptr<kv::channel> over, const kv::sender_options& options,
                                const kv::manifest& m, kv::source& from, const kv::nonce& token,
                                std::uint32_t epoch = 1);

[[nodiscard]] std::vector<std::byte> psk_of(std::string_view text);
/// False in a build without OpenSSL.
[[nodiscard]] bool has_keys();

struct holdings {
  std::size_t fds = 0, threads = 0;
  std::uint64_t rss_kib = 0;
};
[[nodiscard]] holdings process_holdings();
/// Waits until no more descriptors and threads are held than `before` had; false after five seconds.
[[nodiscard]] bool back_to(const holdings& before);

/// A small generator: the same numbers everywhere.
class dice {
 public:
  explicit dice(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return (state_ ^ (state_ >> 29)) >> 16;
  }
  std::uint64_t below(std::uint64_t n) { return next() % n; }

 private:
  std::uint64_t state_;
};

}  // namespace transfer_test
