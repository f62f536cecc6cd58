// A receiver that means no good: its lengths, credits and publications meet a sender that believes none of
// it.
#include <thread>

#include <gtest/gtest.h>

#include "puppet.hpp"
#include "transfer/session/handshake.hpp"

namespace transfer_test {
namespace {

using namespace std::chrono_literals;
using kv::message_type;

constexpr auto kShortPatience = 500ms;
const kv::nonce kToken = kv::fresh_nonce().value();

kv::sender_options sending() {
  return {.timeouts = {.handshake = 500ms, .message = kShortPatience, .idle = kShortPatience},
          .coding = kv::coding::raw,
          .part_bytes = kPartBytes};
}

kv::accept good_terms() {
  return {.n_slots = 8,
          .slot_bytes = kv::frame_bound(8192),
          .max_part_bytes = 8192,
          .max_request_bytes = 1 << 20,
          .max_regions = 16,
          .slots = {}};
}

/// Answers a sender's request as `answers` wants after the handshake, and says how the sender ended.
attempt against(const kv::accept& terms,
                const std::function<void(kv::message_link&, const cache&)>& answers) {
  auto wire = std::make_shared<memory_wire>();
  const cache c = make_cache(1);
  std::thread peer([&] {
    const kv::receiver_options options{
        .timeouts = {.handshake = 500ms, .message = kShortPatience, .idle = kShortPatience}};
    kv::message_link link(memory_wire::end_of(wire, kv::role::receiver), kv::role::receiver,
                          options.timeouts);
    if (!kv::shake_as_receiver(link, options, terms)) return;
    answers(link, c);
    // Reads until the sender leaves.
    while (const auto header = link.receive_header(kv::clock::now() + kShortPatience)) {
      if (!link.receive_payload(*header, 1 << 20)) break;
    }
  });
  const auto from = c.source();
  attempt a = send_once(memory_wire::end_of(wire, kv::role::sender), sending(), c.manifest, *from, kToken);
  peer.join();
  return a;
}

std::vector<std::byte> none(std::uint64_t n_parts) {
  return kv::write_ready(std::vector<bool>(n_parts));
}

void say(kv::message_link& link, message_type type, std::span<const std::byte> payload,
         std::uint32_t slot = 0, std::uint32_t epoch = 1, std::uint64_t request = 1) {
  (void)link.send({.type = type, .request = request, .epoch = epoch, .slot = slot}, payload);
}

TEST(hostile_receiver, terms) {
  std::uint64_t n = 0;
  faults::reset_peak();
  const std::uint64_t kib = faults::peak_kib();
  for (const std::uint32_t slots : {0U, 1025U, ~0U}) {
    kv::accept t = good_terms();
    t.n_slots = slots;
    EXPECT_FALSE(against(t, [](auto&, auto&) {}).done);
    ++n;
  }
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4096}}) {
    kv::accept t = good_terms();
    t.slot_bytes = size;
    EXPECT_FALSE(against(t, [](auto&, auto&) {}).done);
    t = good_terms();
    t.max_part_bytes = size == 4096 ? 0 : size;
    EXPECT_FALSE(against(t, [](auto&, auto&) {}).done);
    t = good_terms();
    t.max_request_bytes = size;
    EXPECT_FALSE(against(t, [](auto&, auto&) {}).done);
    n += 3;
  }
  for (const std::uint64_t size : {std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    kv::accept t = good_terms();
    t.slot_bytes = size;
    t.max_part_bytes = size;
    t.max_request_bytes = size;
    EXPECT_FALSE(against(t, [](auto&, auto&) {}).done);
    ++n;
  }
  if (faults::slowness() == 1) {
    EXPECT_LT(faults::peak_kib(), kib + 16 * 1024);
  }
  faults::publish(28, "terms of a hostile receiver", n, 0, "peers");
}

TEST(hostile_receiver, answers) {
  using link = kv::message_link;
  const auto wrong_totals = write(kv::totals{.n_parts = 6, .digest = 1});
  std::vector<bool> claimed(6);
  claimed[2] = true;
  const std::vector<std::function<void(link&, const cache&)>> lies = {
      // Credit for what was never sent.
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::credit, {}, 7);
      },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::credit, {}, ~0U);
      },
      // Credits of another request and of another epoch.
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::credit, {}, 0, 2);
      },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::credit, {}, 0, 1, 9);
      },
      // Parts that it cannot have, and more or fewer parts than there are.
      [&](link& l, const cache&) { say(l, message_type::ready, kv::write_ready(claimed)); },
      [&](link& l, const cache&) { say(l, message_type::ready, none(7)); },
      [&](link& l, const cache&) { say(l, message_type::ready, none(0)); },
      [&](link& l, const cache&) { say(l, message_type::ready, {}); },
      [&](link& l, const cache&) { say(l, message_type::ready, none(6), 0, 2); },
      // A publication of something else, of nothing, and before the end.
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::published, wrong_totals);
      },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::published, {});
      },
      [&](link& l, const cache&) { say(l, message_type::published, wrong_totals); },
      // Messages that only a sender sends, or that come too early, or too large.
      [&](link& l, const cache&) { say(l, message_type::begin, {}); },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::ready, none(6));
      },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::part, none(800));
      },
      [&](link& l, const cache&) { say(l, message_type::ready, std::vector<std::byte>(1 << 20)); },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::credit, std::vector<std::byte>(1 << 20));
      },
      [&](link& l, const cache&) {
        say(l, message_type::ready, none(6));
        say(l, message_type::fail, std::vector<std::byte>(16));
      },
      // Silence.
      [&](link&, const cache&) {},
      [&](link& l, const cache&) { say(l, message_type::ready, none(6)); },
  };
  std::uint64_t accepted = 0;
  for (std::size_t i = 0; i < lies.size(); ++i) {
    const auto start = kv::clock::now();
    const attempt a = against(good_terms(), lies[i]);
    if (a.done) {
      ++accepted;
      ADD_FAILURE() << "believed: lie " << i;
    }
    EXPECT_LT(kv::clock::now() - start, 5s * faults::slowness()) << i;
  }
  faults::publish(28, "answers of a hostile receiver", lies.size(), accepted, "peers");
}

TEST(hostile_receiver, pings_for_ever_do_not_hold_a_sender) {
  std::atomic<bool> left = false;
  const auto start = kv::clock::now();
  const attempt a = against(good_terms(), [&](kv::message_link& l, const cache&) {
    say(l, message_type::ready, none(6));
    while (!left && l.send({.type = message_type::ping}, {})) {
      std::this_thread::sleep_for(10ms);
      if (kv::clock::now() - start > 8s) break;
    }
  });
  EXPECT_FALSE(a.done);
  EXPECT_LT(kv::clock::now() - start, 5s * faults::slowness());
}

}  // namespace
}  // namespace transfer_test
