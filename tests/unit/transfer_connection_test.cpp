// How connections of every transport begin and end.
#include <cstring>
#include <future>
#include <thread>

#include "transfer_transport_fixture.hpp"

namespace tersor::transfer::testing {
namespace {

using transport_connections = transport_test;

TEST_P(transport_connections, listens_on_ipv6) {
  auto door = subject().listen({.host = "::1", .port = 0}, test_certificates());
  if (!door) GTEST_SKIP() << "no IPv6 here: " << door.error().describe();
  door->reset();
  const ends e = make_ends("::1");
  ASSERT_TRUE(e.client);
  EXPECT_TRUE(is_loopback(e.door->address()));
  ASSERT_TRUE(send_text(*e.client, "six"));
  std::array<std::byte, 3> got = {};
  ASSERT_TRUE(e.server->receive(got, soon()));
  EXPECT_EQ(std::memcmp(got.data(), "six", 3), 0);
}

TEST_P(transport_connections, a_closed_port_refuses) {
  endpoint to;
  {
    const auto door = open_door();
    ASSERT_TRUE(door);
    to = {.host = "127.0.0.1", .port = door->address().port};
  }
  const auto begun = clock::now();
  const auto c = subject().connect(to, in(milliseconds(3'000)), test_certificates());
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, errc::io_error);
  EXPECT_LT(clock::now() - begun, milliseconds(5'000));
}

TEST_P(transport_connections, a_taken_port_is_an_error) {
  const auto door = open_door();
  ASSERT_TRUE(door);
  const auto second =
      subject().listen({.host = "127.0.0.1", .port = door->address().port}, test_certificates());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, errc::io_error);
}

TEST_P(transport_connections, accept_gives_up_at_the_deadline) {
  const auto door = open_door();
  ASSERT_TRUE(door);
  const auto begun = clock::now();
  const auto c = door->accept(in(milliseconds(200)));
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, errc::not_found);
  EXPECT_GE(clock::now() - begun, milliseconds(199));
  EXPECT_LT(clock::now() - begun, milliseconds(1'500));
}

TEST_P(transport_connections, close_wakes_accept) {
  const auto door = open_door();
  ASSERT_TRUE(door);
  auto waiting = std::async(std::launch::async, [&] { return door->accept(soon()); });
  std::this_thread::sleep_for(milliseconds(100));
  const auto begun = clock::now();
  door->close();
  const auto c = waiting.get();
  EXPECT_LT(clock::now() - begun, milliseconds(2'000));
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, errc::cancelled);
  const auto again = door->accept(soon());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, errc::cancelled);
}

TEST_P(transport_connections, many_connect_before_one_is_accepted) {
  const auto door = open_door();
  ASSERT_TRUE(door);
  const endpoint to = {.host = "127.0.0.1", .port = door->address().port};
  constexpr std::size_t kMany = 24;
  std::vector<std::future<bool>> clients;
  for (std::size_t i = 0; i < kMany; ++i) {
    clients.push_back(std::async(std::launch::async, [&, i] {
      auto c = subject().connect(to, soon(), test_certificates());
      if (!c) return false;
      const auto mine = static_cast<std::byte>(i);
      const const_bytes part(&mine, 1);
      std::byte answer = {};
      return (*c)->send({&part, 1}, soon()) && (*c)->receive({&answer, 1}, soon()) && answer == mine;
    }));
  }
  std::this_thread::sleep_for(milliseconds(200));
  std::vector<std::unique_ptr<channel>> servers;
  for (std::size_t i = 0; i < kMany; ++i) {
    auto c = door->accept(soon());
    ASSERT_TRUE(c) << c.error().describe();
    EXPECT_FALSE((*c)->peer().empty());
    std::byte b = {};
    ASSERT_TRUE((*c)->receive({&b, 1}, soon()));
    const const_bytes part(&b, 1);
    ASSERT_TRUE((*c)->send({&part, 1}, soon()));
    servers.push_back(std::move(*c));
  }
  for (auto& client : clients) EXPECT_TRUE(client.get());
}

TEST_P(transport_connections, connections_leave_nothing_behind) {
  // The first ones may open what a library keeps.
  for (int i = 0; i < 3; ++i) (void)make_ends();
  const process_usage before = count_usage();
  for (int i = 0; i < 40; ++i) {
    const ends e = make_ends();
    ASSERT_TRUE(e.client);
    ASSERT_TRUE(send_text(*e.client, "hello"));
    std::array<std::byte, 5> got = {};
    ASSERT_TRUE(e.server->receive(got, soon()));
  }
  const process_usage after = count_usage();
  EXPECT_EQ(after.descriptors, before.descriptors);
  EXPECT_EQ(after.threads, before.threads);
}

INSTANTIATE_TEST_SUITE_P(every, transport_connections, ::testing::ValuesIn(available_transports()),
                         [](const auto& which) { return which.param; });

}  // namespace
}  // namespace tersor::transfer::testing
