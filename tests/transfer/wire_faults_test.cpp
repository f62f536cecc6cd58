// A man in the middle changes one message of a session, in either direction: nothing that was changed is
// accepted, and nothing wrong is published.
#include <thread>

#include <gtest/gtest.h>

#include "puppet.hpp"
#include "tamper.hpp"
#include "transfer/session/handshake.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;
using tersor::codec;

constexpr unsigned kDrivers = 12;
/// For an answer that may never come: longer than any session of this size takes.
constexpr auto kPatience = 150ms * faults::slowness();

kv::security secret(bool with_key) {
  return with_key ? kv::security{.psk = psk_of("a key of the tests only"), .tenant = "t"} : kv::security{};
}

kv::receiver_options receiving(bool with_key) {
  return {.security = secret(with_key),
          .timeouts = {.handshake = 2'000ms, .message = 1'000ms, .idle = 2'000ms},
          .n_slots = 8,
          .max_part_bytes = 4096};
}

kv::sender_options sending(bool with_key, kv::coding c = kv::coding::raw) {
  return {.security = secret(with_key),
          .timeouts = {.handshake = 2'000ms, .message = 2 * kPatience, .idle = 2 * kPatience},
          .coding = c,
          .part_bytes = kPartBytes};
}

struct tally {
  std::atomic<std::uint64_t> sessions{0}, changed{0}, accepted{0}, wrong{0}, lost{0}, lies{0};
};

/// What one session came to.
struct session_end {
  bool served = false;     ///< the receiver found nothing wrong
  bool published = false;  ///< the sender was told so
  bool changed = false;
  recording seen;
};

constexpr std::size_t kSenderMessages = 10;  // hello, offer, begin, six parts, end

session_end towards_receiver(bare_receiver& r, const kv::sender_options& options, const cache& c, codec with,
                             const kv::nonce& token, std::uint32_t epoch, const tamperer::plan* what,
                             dice& random) {
  auto wire = std::make_shared<memory_wire>();
  tamperer middle(what != nullptr ? *what : tamperer::plan{.target = ~std::size_t{0}}, random);
  session_end end;
  bytes welcome;
  std::thread serving([&] {
    auto note_welcome = [&](bytes m) -> std::vector<bytes> {
      if (welcome.empty()) {
        welcome = m;
        middle.set_salt(salt_of(middle.seen().front(), welcome));
      }
      return {std::move(m)};
    };
    end.served = r.serve(memory_wire::end_of(wire, kv::role::receiver, note_welcome)).has_value();
  });
  {
    puppet_sender s(
        memory_wire::end_of(wire, kv::role::sender, [&](bytes m) { return middle.pass(std::move(m)); }),
        options);
    if (s.shake()) {
      const prepared& all = prepared_parts(c.manifest.request, with);
      s.begin(c, token, epoch);
      for (std::size_t i = 0; i < all.parts.size(); ++i) s.send_part(c, all, i, epoch);
      s.end(c, all, epoch);
      end.published = s.wait_for(kv::message_type::published, kPatience).has_value();
    }
    s.leave();
  }
  serving.join();
  end.changed = middle.changed();
  end.seen = middle.seen();
  return end;
}

tamperer::plan roll(dice& random, bool with_key, std::size_t n_messages, const recording& earlier) {
  return {.kind = static_cast<fault>(random.below(with_key ? kFaults : kFaultsWithoutKey)),
          .target = random.below(n_messages),
          .lockstep = 2,
          .earlier = &earlier};
}

/// Sessions with one changed message each, on a driver of its own. Every fourth request is taken up again
/// after the fault, and must then come out right.
void drive_towards_receiver(bool with_key, unsigned driver, std::uint64_t n_changes, tally& total) {
  checking_sink sink;
  bare_receiver r(receiving(with_key), sink);
  dice random(driver + (with_key ? 100 : 0));
  const kv::sender_options options = sending(with_key);
  std::uint64_t request = driver;
  const kv::nonce token = kv::fresh_nonce().value();
  const recording earlier =
      towards_receiver(r, options, make_cache(request), codec::rank, token, 1, nullptr, random).seen;
  ASSERT_EQ(sink.n_published(), 1U);
  std::vector<cache> caches;
  for (std::uint64_t i = 0; i < 8; ++i) caches.push_back(make_cache(i));
  for (std::uint64_t done = 0; done < n_changes;) {
    request += kDrivers;
    cache& c = caches[request % 8];
    c.manifest.request = request;
    const auto with = static_cast<codec>(random.below(3));
    const std::uint64_t before = sink.n_published();
    const tamperer::plan what = roll(random, with_key, kSenderMessages, earlier);
    const session_end end = towards_receiver(r, options, c, with, token, 1, &what, random);
    ++total.sessions;
    const bool there = sink.n_published() > before;
    if (end.changed) {
      ++done;
      ++total.changed;
      // A second copy of the last message comes after the publication; it is refused all the same.
      if (end.served) {
        ++total.accepted;
        ADD_FAILURE() << "accepted: fault " << static_cast<int>(what.kind) << " in message " << what.target
                      << " of request " << request;
      }
      if (end.published && !there) ++total.lies;
    } else if (!end.served || !end.published || !there) {
      ++total.lost;
    }
    if (!there && random.below(4) == 0) {
      const session_end again = towards_receiver(r, options, c, with, token, 2, nullptr, random);
      ++total.sessions;
      // The scripted sender sends parts that the receiver has already: refused, unless it has none.
      if (again.published && sink.n_published() == before) ++total.lies;
    }
    r.discard_all();
  }
  total.wrong += sink.n_wrong();
  EXPECT_EQ(sink.n_open(), 0U);
}

/// Sessions of the real sender, whose answers are changed.
void drive_towards_sender(bool with_key, unsigned driver, std::uint64_t n_changes, tally& total) {
  checking_sink sink;
  bare_receiver r(receiving(with_key), sink);
  dice random(driver + 200);
  std::uint64_t request = driver;
  recording earlier;
  for (std::uint64_t done = 0; done < n_changes;) {
    request += kDrivers;
    const cache c = make_cache(request);
    const std::uint64_t before = sink.n_published();
    tamperer::plan what =
        roll(random, with_key, 10, earlier);  // welcome, accept, ready, six credits, published
    what.lockstep = 3;
    what.direction = 1;
    tamperer middle(earlier.empty() ? tamperer::plan{.target = ~std::size_t{0}} : what, random);
    auto wire = std::make_shared<memory_wire>();
    bytes hello;
    const kv::role from_sender = kv::role::sender;
    auto keep_hello = [&](bytes m) -> std::vector<bytes> {
      if (hello.empty()) hello = m;
      return {std::move(m)};
    };
    auto tamper = [&](bytes m) {
      if (middle.seen().empty()) middle.set_salt(salt_of(hello, m));
      return middle.pass(std::move(m));
    };
    std::thread serving([&] { (void)r.serve(memory_wire::end_of(wire, kv::role::receiver, tamper)); });
    const auto source = c.source();
    const attempt a = send_once(memory_wire::end_of(wire, from_sender, keep_hello),
                                sending(with_key, static_cast<kv::coding>(1 + random.below(3))), c.manifest,
                                *source, kv::fresh_nonce().value());
    serving.join();
    ++total.sessions;
    const bool there = sink.n_published() > before;
    // After the publication was heard the sender leaves: what comes later meets nobody.
    const bool heard = middle.changed() && what.kind == fault::duplicated && what.target == 9;
    if (middle.changed()) {
      ++done;
      ++total.changed;
      if (a.done && !heard) {
        ++total.accepted;
        ADD_FAILURE() << "accepted: fault " << static_cast<int>(what.kind) << " in answer " << what.target;
      }
    } else if (!a.done || !there) {
      ++total.lost;
    }
    if (a.done && !there) ++total.lies;
    if (!a.done && there && !a.may_be_published) {
      ++total.lies;
      ADD_FAILURE() << "published, but the sender is sure that it was not: " << a.done.error().describe()
                    << " fault " << static_cast<int>(what.kind) << " in answer " << what.target;
    }
    if (earlier.empty()) earlier = middle.seen();
    r.discard_all();
  }
  total.wrong += sink.n_wrong();
}

using driver_fn = void (*)(bool, unsigned, std::uint64_t, tally&);

void drive(driver_fn how, bool with_key, std::uint64_t n_changes, const char* what) {
  if (with_key && !has_keys()) GTEST_SKIP() << "no OpenSSL in this build";
  (void)prepared_parts(0, codec::raw);
  tally total;
  std::vector<std::thread> drivers;
  for (unsigned i = 0; i < kDrivers; ++i) {
    drivers.emplace_back([&, i] { how(with_key, i, n_changes / kDrivers + 1, total); });
  }
  for (std::thread& d : drivers) d.join();
  EXPECT_EQ(total.accepted, 0U);
  EXPECT_EQ(total.wrong, 0U);
  EXPECT_EQ(total.lies, 0U);
  // The control: sessions whose message came out as it was.
  EXPECT_EQ(total.lost, 0U);
  faults::publish(27, what, total.changed, total.accepted + total.wrong + total.lies, "messages");
}

std::uint64_t grid(std::uint64_t in_long, std::uint64_t in_short) {
  return faults::long_run() ? in_long : in_short / faults::slowness();
}

TEST(wire_faults, changed_messages_of_a_sender) {
  drive(drive_towards_receiver, false, grid(450'000, 6'000), "messages to the receiver changed");
}
TEST(wire_faults, changed_messages_of_a_sender_with_a_key) {
  drive(drive_towards_receiver, true, grid(350'000, 4'000), "messages to the receiver changed, with a key");
}
TEST(wire_faults, changed_answers_of_a_receiver) {
  drive(drive_towards_sender, false, grid(120'000, 1'500), "answers to the sender changed");
}
TEST(wire_faults, changed_answers_of_a_receiver_with_a_key) {
  drive(drive_towards_sender, true, grid(90'000, 1'500), "answers to the sender changed, with a key");
}

}  // namespace
}  // namespace transfer_test
