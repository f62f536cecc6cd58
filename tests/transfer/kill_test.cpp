// SIGKILL of a sender or a receiver at random moments: the other side does not hang, publishes nothing that
// is not complete, keeps nothing, and serves the next request.
#include <csignal>
#include <set>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.hpp"

extern char** environ;

namespace transfer_test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kLayers = 2;
constexpr std::uint64_t kPages = 40;
constexpr auto kNoHang = 10s;

std::uint64_t n_kills() {
  return faults::long_run() ? 600 / faults::slowness() : 30 / std::min(faults::slowness(), 4U);
}

/// A program whose standard output the test reads.
class child {
 public:
  explicit child(std::vector<std::string> args) {
    int ends[2] = {};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    args.insert(args.begin(), TERSOR_TRANSFER_PEER);
    std::vector<char*> raw;
    for (std::string& a : args) raw.push_back(a.data());
    raw.push_back(nullptr);
    ::posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    EXPECT_EQ(::posix_spawn(&pid_, args[0].c_str(), &actions, nullptr, raw.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    out_ = ends[0];
  }
  ~child() {
    kill();
    ::close(out_);
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  std::string line() {
    std::string text;
    for (char c = 0; ::read(out_, &c, 1) == 1 && c != '\n';) text.push_back(c);
    return text;
  }
  /// Everything that was printed before it was killed.
  std::set<std::string> rest() {
    std::set<std::string> lines;
    for (std::string text = line(); !text.empty(); text = line()) lines.insert(text);
    return lines;
  }

 private:
  ::pid_t pid_ = 0;
  int out_ = -1;
};

std::string send_one(kv::sender& s, std::uint64_t request) {
  const cache c = make_cache(request, kLayers, kPages);
  const auto sent = s.send(c.manifest, *c.source());
  return sent ? "" : sent.error().describe();
}

TEST(kill, senders) {
  checking_sink sink;
  const kv::receiver_options options{.max_part_bytes = 8192, .resume = 100ms};
  auto r = kv::receiver::listen({}, options, sink);
  ASSERT_TRUE(r) << r.error().describe();
  const std::string port = std::to_string(r->address().port);
  dice random(1);
  std::uint64_t interrupted = 0;
  std::uint64_t wrong = 0;
  std::optional<holdings> before;
  const std::uint64_t kills = n_kills();
  for (std::uint64_t i = 0; i < kills; ++i) {
    {
      child sender({"send", port, std::to_string((i + 1) << 32)});
      // From before the connection to some requests later.
      const std::uint64_t parts = r->counters().parts;
      const auto wait_until = kv::clock::now() + 5s;
      while (i % 4 != 0 && r->counters().parts == parts && kv::clock::now() < wait_until)
        std::this_thread::sleep_for(200us);
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(i % 4 != 0 ? 8'000 : 30'000)));
      sender.kill();
    }
    std::this_thread::sleep_for(5ms);
    interrupted += sink.n_open();
    if (i % 10 == 9 || i + 1 == kills) {
      auto s = kv::sender::connect(r->address(), {.part_bytes = 8192});
      const std::string failed = s ? send_one(*s, i + 1) : s.error().describe();
      if (!failed.empty()) {
        ++wrong;
        ADD_FAILURE() << "after kill " << i << ": " << failed;
      }
    }
    if (i == 9) before = process_holdings();
  }
  const auto until = kv::clock::now() + 5s;
  while (sink.n_open() > 0 && kv::clock::now() < until) std::this_thread::sleep_for(20ms);
  EXPECT_EQ(sink.n_open(), 0U);
  EXPECT_EQ(sink.n_wrong(), 0U);
  EXPECT_GT(interrupted, kills / 10) << "too few kills hit a request";
  if (before) {
    EXPECT_TRUE(back_to(*before));
    EXPECT_LT(process_holdings().rss_kib, before->rss_kib + 32 * 1024);
  }
  faults::publish(26, "senders killed", kills, wrong + sink.n_wrong() + sink.n_open(), "kills");
}

TEST(kill, receivers) {
  dice random(2);
  std::string port = "0";
  std::optional<kv::sender> s;
  std::optional<holdings> before;
  const std::uint64_t kills = n_kills();
  std::uint64_t request = 1, wrong = 0, interrupted = 0;
  for (std::uint64_t i = 0; i < kills; ++i) {
    child receiver({"receive", port});
    const std::string first = receiver.line();
    ASSERT_EQ(first.substr(0, 5), "port ") << first;
    port = first.substr(5);
    const kv::endpoint to{.host = "127.0.0.1", .port = static_cast<std::uint16_t>(std::stoul(port))};
    if (!s) {
      const kv::sender_options options{
          .timeouts = {.connect = 2'000ms, .message = 5'000ms}, .part_bytes = 8192, .attempts = 1};
      auto made = kv::sender::connect(to, options);
      ASSERT_TRUE(made) << made.error().describe();
      s.emplace(std::move(*made));
    }
    // Every second one in a request after its first.
    std::atomic<bool> one_done = false, gone = false;
    std::thread killer([&] {
      while (i % 2 != 0 && !one_done && !gone) std::this_thread::sleep_for(100us);
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(20'000)));
      receiver.kill();
    });
    std::vector<std::string> done;
    std::string failed, last;
    const auto start = kv::clock::now();
    while (failed.empty()) {
      last = std::to_string(request);
      failed = send_one(*s, request++);
      if (failed.empty()) done.push_back(last);
      one_done = one_done || failed.empty();
    }
    gone = true;
    killer.join();
    const std::set<std::string> printed = receiver.rest();
    for (const std::string& d : done) wrong += printed.contains(d) ? 0U : 1U;
    for (const std::string& p : printed) wrong += p.starts_with("wrong") ? 1U : 0U;
    const bool said = failed.find("may be published") != std::string::npos;
    if ((printed.contains(last) && !said) || kv::clock::now() - start > kNoHang) {
      ++wrong;
      ADD_FAILURE() << "kill " << i << ": " << failed;
    }
    interrupted += done.empty() && printed.empty() ? 0U : 1U;
    if (i == 9) before = process_holdings();
  }
  EXPECT_EQ(wrong, 0U);
  EXPECT_GT(interrupted, kills / 4) << "too few receivers had published anything";
  s.reset();
  if (before) {
    EXPECT_TRUE(back_to(*before));
    EXPECT_LT(process_holdings().rss_kib, before->rss_kib + 32 * 1024);
  }
  faults::publish(26, "receivers killed", kills, wrong, "kills");
}

}  // namespace
}  // namespace transfer_test
