// Whole sessions played again, connections that go on after they were replaced, and data under a wrong name.
#include <latch>
#include <thread>

#include <gtest/gtest.h>

#include "puppet.hpp"
#include "tamper.hpp"
#include "transfer/session/handshake.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;
using tersor::codec;
using tersor::errc;

constexpr auto kPatience = 2'000ms;

kv::sender_options sending(const kv::security& secret) {
  return {.security = secret, .part_bytes = kPartBytes};
}

/// A bare receiver, its sink, and connections to it.
class scene {
 public:
  explicit scene(kv::receiver_options options = {})
      : secret_(options.security), receiver_(small(options), sink) {}
  ~scene() { finish(); }
  scene(const scene&) = delete;
  scene& operator=(const scene&) = delete;

  /// A channel whose other end a thread of the receiver serves.
  std::unique_ptr<kv::channel> dial(message_hook hook = {}) {
    auto wire = std::make_shared<memory_wire>();
    newest = wire;
    serving_.emplace_back([this, wire, at = served.size()] {
      const status s = receiver_.serve(memory_wire::end_of(wire, kv::role::receiver));
      const std::lock_guard lock(mutex_);
      served[at] = s ? errc::ok : s.error().code;
    });
    const std::lock_guard lock(mutex_);
    served.emplace_back();
    return memory_wire::end_of(wire, kv::role::sender, std::move(hook));
  }
  std::unique_ptr<puppet_sender> puppet(kv::geometry said = {}) {
    kv::sender_options options = sending(secret_);
    options.geometry = std::move(said);
    return std::make_unique<puppet_sender>(dial(), options);
  }
  void finish() {
    for (std::thread& t : serving_) t.join();
    serving_.clear();
    receiver_.discard_all();
  }

  checking_sink sink;
  std::shared_ptr<memory_wire> newest;
  std::deque<errc> served;

 private:
  static kv::receiver_options small(kv::receiver_options options) {
    options.timeouts.handshake = 2'000ms;
    options.max_part_bytes = 4096;
    return options;
  }
  std::mutex mutex_;
  kv::security secret_;
  bare_receiver receiver_;
  std::vector<std::thread> serving_;
};

const kv::nonce kToken = kv::fresh_nonce().value();

class old_messages : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !has_keys()) GTEST_SKIP() << "no OpenSSL in this build";
    if (GetParam()) secret.psk = psk_of("a key of the tests only");
  }
  kv::security secret;
};
INSTANTIATE_TEST_SUITE_P(keys, old_messages, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "with_a_key" : "without_a_key"; });

TEST_P(old_messages, a_whole_session_again) {
  scene s({.security = secret});
  recording said;
  const cache c = make_cache(1);
  const auto from = c.source();
  const attempt a = send_once(s.dial([&](bytes m) -> std::vector<bytes> {
    said.push_back(m);
    return {std::move(m)};
  }),
                              sending(secret), c.manifest, *from, kToken);
  ASSERT_TRUE(a.done) << a.done.error().describe();
  ASSERT_EQ(said.size(), 10U);
  const std::uint64_t decoded = s.sink.n_decoded();
  std::uint64_t sessions = 0;
  for (std::size_t skipped = 0; skipped < said.size(); ++skipped) {
    for (std::size_t n = skipped + 1; n <= said.size(); ++n) {
      const auto replayed = s.dial();
      for (std::size_t i = skipped; i < n; ++i) s.newest->push(kv::role::receiver, said[i]);
      s.newest->finish(kv::role::receiver);
      s.finish();
      ++sessions;
    }
  }
  std::uint64_t accepted = 0;
  for (std::size_t i = 1; i < s.served.size(); ++i) {
    if (s.served[i] == errc::ok) ++accepted;
  }
  EXPECT_EQ(accepted, 0U);
  EXPECT_EQ(s.sink.n_published(), 1U);
  EXPECT_EQ(s.sink.n_decoded(), decoded);
  faults::publish(27, "recorded sessions played again", sessions, accepted, "sessions");
}

TEST_P(old_messages, the_replaced_connection_goes_on) {
  const std::uint64_t rounds = (faults::long_run() ? 20'000U : 400U) / faults::slowness();
  scene s({.security = secret});
  std::uint64_t wrong_answers = 0, completed = 0;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const cache c = make_cache(round);
    const prepared& right = prepared_parts(round, codec::rank);
    // Of the same sizes, and not what the request holds.
    const prepared& other = prepared_parts(round + 1, codec::raw);
    const auto first = s.puppet();
    ASSERT_TRUE(first->shake());
    first->begin(c, kToken, 1);
    ASSERT_TRUE(first->wait_for(kv::message_type::ready, kPatience));
    first->send_part(c, right, 0, 1);
    // At the same time, or every second one after it was replaced.
    std::latch replaced(1);
    std::thread going_on([&] {
      if (round % 2 != 0) replaced.wait();
      for (std::size_t i = 1; i < 6; ++i) first->send_part(c, other, i, 1);
      first->end(c, right, 1);
      // Nothing that the old connection says may complete the request.
      if (first->wait_for(kv::message_type::published, kPatience)) ++wrong_answers;
    });
    const auto second = s.puppet();
    ASSERT_TRUE(second->shake());
    second->begin(c, kToken, 2);
    const auto ready = second->wait_for(kv::message_type::ready, kPatience);
    replaced.count_down();
    if (ready) {
      // Before it was replaced the old connection spoke for the request, and what it sent then counts.
      const auto held = kv::read_ready(ready->payload, 6).value();
      for (std::size_t i = 0; i < 6; ++i) {
        if (!held[i]) second->send_part(c, right, i, 2);
      }
      second->end(c, right, 2);
      const bool done = second->wait_for(kv::message_type::published, kPatience).has_value();
      const bool spoiled = std::find(held.begin() + 1, held.end(), true) != held.end();
      if (done == spoiled) ++wrong_answers;
      completed += done ? 1 : 0;
    }
    going_on.join();
    second->leave();
    first->leave();
    s.finish();
  }
  EXPECT_EQ(wrong_answers, 0U);
  EXPECT_GT(completed, 0U);
  EXPECT_EQ(s.sink.n_published(), completed);
  EXPECT_EQ(s.sink.n_wrong(), 0U);
  EXPECT_EQ(s.sink.n_open(), 0U);
  faults::publish(27, "replaced connections that go on", rounds, wrong_answers, "sessions");
}

TEST_P(old_messages, a_resumption_needs_the_token_a_newer_epoch_and_the_same_manifest) {
  scene s({.security = secret});
  const cache c = make_cache(3);
  const auto first = s.puppet();
  ASSERT_TRUE(first->shake());
  first->begin(c, kToken, 5);
  ASSERT_TRUE(first->wait_for(kv::message_type::ready, kPatience));
  kv::nonce stranger = kToken;
  stranger[7] ^= std::byte{1};
  cache other = c;
  other.manifest.note.push_back(std::byte{1});
  struct {
    const cache& what;
    kv::nonce token;
    std::uint32_t epoch;
    errc code;
  } const cases[] = {{c, stranger, 6, errc::already_exists},
                     {c, kToken, 5, errc::mismatch},
                     {c, kToken, 4, errc::mismatch},
                     {c, kToken, 0, errc::mismatch},
                     {other, kToken, 6, errc::mismatch}};
  for (const auto& tried : cases) {
    const auto p = s.puppet();
    ASSERT_TRUE(p->shake());
    p->begin(tried.what, tried.token, tried.epoch);
    EXPECT_FALSE(p->wait_for(kv::message_type::ready, kPatience));
    ASSERT_TRUE(p->last_failure());
    EXPECT_EQ(p->last_failure()->code, tried.code) << p->last_failure()->message;
  }
  // The one that began it has not noticed.
  const prepared& all = prepared_parts(3, codec::top16);
  for (std::size_t i = 0; i < 6; ++i) first->send_part(c, all, i, 5);
  first->end(c, all, 5);
  EXPECT_TRUE(first->wait_for(kv::message_type::published, kPatience));
  first->leave();
  s.finish();
  EXPECT_EQ(s.sink.n_published(), 1U);
  EXPECT_EQ(s.sink.n_wrong(), 0U);
}

TEST_P(old_messages, a_codebook_that_was_not_agreed_on) {
  const cache plain = make_cache(2);
  std::vector<tersor::codebook> books;
  for (const bytes& region : plain.data) {
    const auto counts = tersor::count_symbols(shared_context(), tersor::dtype::bf16, region);
    books.push_back(tersor::make_codebook(tersor::dtype::bf16, *counts).value());
  }
  kv::geometry agreed{.model = "m", .revision = "r", .codebooks = books};
  scene s({.expected = agreed, .security = secret});
  cache c = plain;
  for (std::size_t i = 0; i < books.size(); ++i) c.manifest.regions[i].book = books[i];
  cache swapped = c;
  std::swap(swapped.manifest.regions[0].book, swapped.manifest.regions[1].book);
  auto another = books[1];
  std::swap(another.symbols[14], another.symbols[15]);
  cache strange = c;
  strange.manifest.regions[1].book = another;

  // In the manifest.
  for (const cache* wrong : std::initializer_list<const cache*>{&plain, &swapped, &strange}) {
    if (wrong == &swapped && books[0] == books[1]) continue;
    const auto p = s.puppet(agreed);
    ASSERT_TRUE(p->shake());
    p->begin(*wrong, kToken, 1);
    EXPECT_FALSE(p->wait_for(kv::message_type::ready, kPatience));
    ASSERT_TRUE(p->last_failure());
    EXPECT_EQ(p->last_failure()->code, errc::mismatch);
  }
  // In a frame: the manifest says the agreed one.
  for (const codec with : {codec::top16, codec::rank}) {
    const prepared all = prepare_parts(strange, with);
    ASSERT_EQ(all.encoded[3].codec, with);
    const auto p = s.puppet(agreed);
    ASSERT_TRUE(p->shake());
    c.manifest.request += 8;
    p->begin(c, kToken, 1);
    ASSERT_TRUE(p->wait_for(kv::message_type::ready, kPatience));
    p->send_part(c, all, 3, 1);
    EXPECT_FALSE(p->wait_for(kv::message_type::credit, kPatience));
    ASSERT_TRUE(p->last_failure());
    EXPECT_NE(p->last_failure()->message.find("codebook"), std::string::npos) << p->last_failure()->message;
  }
  // In the handshake: model, revision, and the digests of the codebooks.
  kv::geometry said = agreed;
  said.codebooks[1] = another;
  EXPECT_FALSE(s.puppet(said)->shake());
  said = agreed;
  said.revision = "r2";
  EXPECT_FALSE(s.puppet(said)->shake());
  said.revision = "r";
  said.model = "";
  EXPECT_FALSE(s.puppet(said)->shake());
  s.finish();
  EXPECT_EQ(s.sink.n_published(), 0U);
}

}  // namespace
}  // namespace transfer_test
