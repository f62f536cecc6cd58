// Every transport keeps the promises of channel.hpp: the same tests run over each one of this machine.
#include <atomic>
#include <cstring>
#include <future>
#include <thread>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "transfer_transport_fixture.hpp"

namespace tersor::transfer::testing {
namespace {

using transport_conformance = transport_test;

std::vector<std::byte> pattern(std::size_t n_bytes, std::uint32_t seed) {
  std::vector<std::byte> data(n_bytes);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::byte& b : data) {
    state = state * 1664525U + 1013904223U;
    b = static_cast<std::byte>(state >> 24);
  }
  return data;
}

TEST_P(transport_conformance, gathers_in_order_and_reads_byte_by_byte) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  const std::vector<std::byte> data = pattern(20'000, 1);
  // Lengths 0, 1, 2, ...: empty parts, and more parts than one system call takes.
  std::vector<const_bytes> parts;
  for (std::size_t at = 0, n = 0; at < data.size(); at += n, n = (n + 1) % 150)
    parts.push_back(const_bytes(data).subspan(at, std::min(n, data.size() - at)));
  auto sending = std::async(std::launch::async, [&] { return e.client->send(parts, soon()); });
  std::vector<std::byte> got(data.size());
  for (std::byte& b : got) {
    const auto ok = e.server->receive({&b, 1}, soon());
    ASSERT_TRUE(ok) << ok.error().describe();
  }
  EXPECT_TRUE(sending.get());
  EXPECT_EQ(got, data);
}

TEST_P(transport_conformance, empty_sends_and_receives_do_nothing) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  EXPECT_TRUE(e.client->send({}, soon()));
  const const_bytes nothing;
  EXPECT_TRUE(e.client->send({&nothing, 1}, soon()));
  EXPECT_TRUE(e.server->receive({}, soon()));
  EXPECT_TRUE(send_text(*e.client, "x"));
  std::byte b = {};
  EXPECT_TRUE(e.server->receive({&b, 1}, soon()));
  EXPECT_EQ(b, std::byte{'x'});
}

TEST_P(transport_conformance, one_part_beyond_two_gibibytes) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  constexpr std::size_t kSize = (std::size_t{1} << 31) + 12'345;
  // Pages that nobody wrote cost no memory.
  void* const memory = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const bytes = static_cast<std::byte*>(memory);
  bytes[0] = std::byte{1};
  bytes[kSize - 1] = std::byte{2};
  const std::array<const_bytes, 2> parts = {bytes_of("head"), const_bytes(bytes, kSize)};
  auto sending =
      std::async(std::launch::async, [&] { return e.client->send(parts, in(milliseconds(120'000))); });

  std::vector<std::byte> piece(std::size_t{16} << 20);
  ASSERT_TRUE(e.server->receive(std::span(piece).first(4), soon()));
  EXPECT_EQ(std::memcmp(piece.data(), "head", 4), 0);
  std::size_t n_set = 0;
  for (std::size_t at = 0; at < kSize;) {
    const auto here = std::span(piece).first(std::min(piece.size(), kSize - at));
    const auto ok = e.server->receive(here, in(milliseconds(60'000)));
    ASSERT_TRUE(ok) << ok.error().describe() << " at " << at;
    if (at == 0) {
      EXPECT_EQ(here.front(), std::byte{1});
    }
    at += here.size();
    if (at == kSize) {
      EXPECT_EQ(here.back(), std::byte{2});
    }
    // All others are zero: equal neighbours.
    if (at != kSize && at != here.size()) n_set += std::memcmp(&here[0], &here[1], here.size() - 1) != 0;
  }
  EXPECT_EQ(n_set, 0U);
  EXPECT_TRUE(sending.get());
  ::munmap(memory, kSize);
}

TEST_P(transport_conformance, both_directions_at_once) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  constexpr std::size_t kSize = std::size_t{24} << 20;
  const std::vector<std::byte> there = pattern(kSize, 2), back = pattern(kSize, 3);
  const auto pour = [](channel& c, const std::vector<std::byte>& data) {
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t n = std::min<std::size_t>(data.size() - at, 3'000'017);
      const std::array<const_bytes, 2> parts = {const_bytes(data).subspan(at, n / 3),
                                                const_bytes(data).subspan(at + n / 3, n - n / 3)};
      if (auto ok = c.send(parts, soon()); !ok) return false;
      at += n;
    }
    return true;
  };
  const auto drain = [](channel& c, const std::vector<std::byte>& expected) {
    std::vector<std::byte> got(expected.size());
    for (std::size_t at = 0; at < got.size();) {
      const std::size_t n = std::min<std::size_t>(got.size() - at, 1'234'567);
      if (auto ok = c.receive(std::span(got).subspan(at, n), soon()); !ok) return false;
      at += n;
    }
    return got == expected;
  };
  auto a = std::async(std::launch::async, [&] { return pour(*e.client, there); });
  auto b = std::async(std::launch::async, [&] { return pour(*e.server, back); });
  auto c = std::async(std::launch::async, [&] { return drain(*e.server, there); });
  EXPECT_TRUE(drain(*e.client, back));
  EXPECT_TRUE(a.get());
  EXPECT_TRUE(b.get());
  EXPECT_TRUE(c.get());
}

TEST_P(transport_conformance, ping_pong) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  constexpr int kRounds = 2'000;
  auto echo = std::async(std::launch::async, [&] {
    std::array<std::byte, 32> message = {};
    for (int i = 0; i < kRounds; ++i) {
      if (!e.server->receive(message, soon())) return false;
      const const_bytes part = message;
      if (!e.server->send({&part, 1}, soon())) return false;
    }
    return true;
  });
  for (int i = 0; i < kRounds; ++i) {
    std::array<std::byte, 32> message = {};
    std::memcpy(message.data(), &i, sizeof i);
    const const_bytes part = message;
    ASSERT_TRUE(e.client->send({&part, 1}, soon()));
    std::array<std::byte, 32> answer = {};
    ASSERT_TRUE(e.client->receive(answer, soon()));
    ASSERT_EQ(answer, message);
  }
  EXPECT_TRUE(echo.get());
}

TEST_P(transport_conformance, receive_gives_up_at_the_deadline) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  std::array<std::byte, 8> buffer = {};
  const auto begun = clock::now();
  const auto ok = e.server->receive(buffer, in(milliseconds(200)));
  const auto took = clock::now() - begun;
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
  EXPECT_EQ(ok.error().message, "timed out");
  EXPECT_GE(took, milliseconds(200));
  EXPECT_LT(took, milliseconds(1'500));
}

TEST_P(transport_conformance, a_trickle_does_not_move_the_deadline) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  std::atomic<bool> stop = false;
  std::thread trickle([&] {
    while (!stop && send_text(*e.client, "x")) std::this_thread::sleep_for(milliseconds(20));
  });
  std::vector<std::byte> buffer(1'000'000);
  const auto begun = clock::now();
  const auto ok = e.server->receive(buffer, in(milliseconds(300)));
  const auto took = clock::now() - begun;
  stop = true;
  trickle.join();
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().message, "timed out");
  EXPECT_GE(took, milliseconds(300));
  EXPECT_LT(took, milliseconds(1'800));
}

TEST_P(transport_conformance, send_gives_up_at_the_deadline) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  const std::vector<std::byte> block(std::size_t{64} << 20);
  const const_bytes part = block;
  const auto begun = clock::now();
  status ok;
  // What lies between the two ends may swallow a few blocks first.
  for (int i = 0; i < 16 && ok; ++i) ok = e.client->send({&part, 1}, begun + milliseconds(400));
  const auto took = clock::now() - begun;
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
  EXPECT_EQ(ok.error().message, "timed out");
  EXPECT_GE(took, milliseconds(400));
  EXPECT_LT(took, milliseconds(2'500));
}

TEST_P(transport_conformance, shutdown_wakes_receive) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  auto waiting = std::async(std::launch::async, [&] {
    std::array<std::byte, 8> buffer = {};
    return e.server->receive(buffer, soon());
  });
  std::this_thread::sleep_for(milliseconds(100));
  const auto begun = clock::now();
  e.server->shutdown();
  const auto ok = waiting.get();
  EXPECT_LT(clock::now() - begun, milliseconds(2'000));
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
  std::array<std::byte, 8> buffer = {};
  EXPECT_FALSE(e.server->receive(buffer, soon()));
  EXPECT_FALSE(send_text(*e.server, "never"));
  e.server->shutdown();
}

TEST_P(transport_conformance, shutdown_wakes_send) {
  const ends e = make_ends();
  ASSERT_TRUE(e.client);
  auto waiting = std::async(std::launch::async, [&] {
    const std::vector<std::byte> block(std::size_t{64} << 20);
    const const_bytes part = block;
    status ok;
    for (int i = 0; i < 16 && ok; ++i) ok = e.client->send({&part, 1}, soon());
    return ok;
  });
  std::this_thread::sleep_for(milliseconds(300));
  const auto begun = clock::now();
  e.client->shutdown();
  const auto ok = waiting.get();
  EXPECT_LT(clock::now() - begun, milliseconds(2'000));
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
}

TEST_P(transport_conformance, peer_that_leaves_before_the_first_byte) {
  ends e = make_ends();
  ASSERT_TRUE(e.client);
  e.client.reset();
  std::array<std::byte, 8> buffer = {};
  const auto ok = e.server->receive(buffer, soon());
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::not_found);
}

TEST_P(transport_conformance, what_was_sent_before_leaving_arrives) {
  ends e = make_ends();
  ASSERT_TRUE(e.client);
  const std::vector<std::byte> data = pattern(300'000, 4);
  auto leaving = std::async(std::launch::async, [&] {
    const const_bytes part = data;
    const auto ok = e.client->send({&part, 1}, soon());
    e.client.reset();
    return ok.has_value();
  });
  std::vector<std::byte> got(data.size());
  const auto ok = e.server->receive(got, soon());
  ASSERT_TRUE(ok) << ok.error().describe();
  EXPECT_EQ(got, data);
  EXPECT_TRUE(leaving.get());
  std::byte more = {};
  const auto end = e.server->receive({&more, 1}, soon());
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, errc::not_found);
}

TEST_P(transport_conformance, peer_that_leaves_in_the_middle) {
  ends e = make_ends();
  ASSERT_TRUE(e.client);
  ASSERT_TRUE(send_text(*e.client, "half"));
  std::array<std::byte, 2> first = {};
  ASSERT_TRUE(e.server->receive(first, soon()));
  e.client.reset();
  std::array<std::byte, 8> buffer = {};
  const auto ok = e.server->receive(buffer, soon());
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
  EXPECT_EQ(ok.error().message, "closed by the peer");
}

TEST_P(transport_conformance, sending_to_a_peer_that_left_is_an_error_and_no_signal) {
  ends e = make_ends();
  ASSERT_TRUE(e.client);
  e.server.reset();
  const std::vector<std::byte> block(std::size_t{1} << 20);
  const const_bytes part = block;
  status ok;
  for (int i = 0; i < 200 && ok; ++i) ok = e.client->send({&part, 1}, soon());
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
}

void ignore_signal(int) {}

TEST_P(transport_conformance, signals_do_not_end_a_wait) {
  struct sigaction action = {};
  action.sa_handler = ignore_signal;  // without SA_RESTART: calls return EINTR
  struct sigaction before = {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  {
    const ends e = make_ends();
    ASSERT_TRUE(e.client);
    const std::vector<std::byte> data = pattern(std::size_t{8} << 20, 5);
    std::vector<std::byte> got(data.size());
    std::atomic<bool> done = false;
    status received, sent;
    std::thread reader([&] { received = e.server->receive(got, soon()); });
    std::thread annoying([&] {
      while (!done) {
        ::pthread_kill(reader.native_handle(), SIGUSR1);
        std::this_thread::sleep_for(milliseconds(2));
      }
    });
    std::this_thread::sleep_for(milliseconds(50));
    for (std::size_t at = 0; at < data.size() && sent; at += data.size() / 8) {
      const const_bytes part = const_bytes(data).subspan(at, data.size() / 8);
      sent = e.client->send({&part, 1}, soon());
      std::this_thread::sleep_for(milliseconds(5));
    }
    EXPECT_TRUE(sent);
    std::this_thread::sleep_for(milliseconds(50));
    done = true;
    annoying.join();
    reader.join();
    EXPECT_TRUE(received) << received.error().describe();
    EXPECT_EQ(got, data);
  }
  ::sigaction(SIGUSR1, &before, nullptr);
}

INSTANTIATE_TEST_SUITE_P(every, transport_conformance, ::testing::ValuesIn(available_transports()),
                         [](const auto& which) { return which.param; });

}  // namespace
}  // namespace tersor::transfer::testing
