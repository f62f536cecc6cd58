// Whom the transport "tls" talks to.
#include <future>

#include "transfer_transport_fixture.hpp"

namespace tersor::transfer::testing {
namespace {

class tls_test : public ::testing::Test {
 protected:
  void SetUp() override {
    auto found = find_transport("tls");
    if (!found) GTEST_SKIP() << found.error().describe();
    tls_ = *found;
  }

  struct verdict {
    bool server = false, client = false;
    std::string why;
  };
  /// Lets the two exchange a byte in each direction.
  verdict meet(const tls_files& server, const tls_files& client,
               const std::string& host = "127.0.0.1") const {
    auto door = tls_->listen({.host = "127.0.0.1", .port = 0}, server);
    if (!door) return {.why = door.error().describe()};
    auto serving = std::async(std::launch::async, [&] {
      auto c = (*door)->accept(soon());
      std::byte b = {};
      status ok = c ? (*c)->receive({&b, 1}, in(milliseconds(3'000))) : tl::unexpected(c.error());
      if (ok) ok = send_text(**c, "y");
      return ok;
    });
    verdict v;
    {
      auto c = tls_->connect({.host = host, .port = (*door)->address().port}, soon(), client);
      status ok = c ? send_text(**c, "x") : tl::unexpected(c.error());
      std::byte b = {};
      if (ok) ok = (*c)->receive({&b, 1}, in(milliseconds(3'000)));
      v.client = ok.has_value();
      if (!ok) v.why = ok.error().describe();
    }
    (*door)->close();
    const status ok = serving.get();
    v.server = ok.has_value();
    if (!ok) v.why += " / " + ok.error().describe();
    return v;
  }

  const transport* tls_ = nullptr;
};

TEST_F(tls_test, two_nodes_of_one_authority_meet) {
  const verdict v = meet(test_certificates(), test_certificates());
  EXPECT_TRUE(v.server && v.client) << v.why;
  const verdict by_name = meet(test_certificates(), test_certificates(), "localhost");
  EXPECT_TRUE(by_name.server && by_name.client) << by_name.why;
}

TEST_F(tls_test, nodes_of_another_authority_are_refused) {
  const test_authority other;
  tls_files foreign = other.files();
  foreign.ca_file = test_certificates().ca_file;
  const verdict client = meet(test_certificates(), foreign);
  EXPECT_FALSE(client.server || client.client);
  const verdict server = meet(foreign, test_certificates());
  EXPECT_FALSE(server.server || server.client);
}

TEST_F(tls_test, expired_certificates_are_refused) {
  const test_authority own;
  tls_files old = own.files();
  old.certificate_file = own.expired_certificate();
  const verdict client = meet(own.files(), old);
  EXPECT_FALSE(client.server || client.client);
  const verdict server = meet(old, own.files());
  EXPECT_FALSE(server.server || server.client);
  EXPECT_NE(server.why.find("certificate"), std::string::npos) << server.why;
}

TEST_F(tls_test, a_server_must_be_the_one_that_was_named) {
  // 127.0.0.2 reaches the same machine, but is not in the certificate.
  auto door = tls_->listen({.host = "127.0.0.2", .port = 0}, test_certificates());
  if (!door) GTEST_SKIP() << "127.0.0.2 is not here";
  auto serving = std::async(std::launch::async, [&] {
    auto c = (*door)->accept(soon());
    std::byte b = {};
    return c && (*c)->receive({&b, 1}, in(milliseconds(3'000)));
  });
  auto c = tls_->connect({.host = "127.0.0.2", .port = (*door)->address().port}, soon(), test_certificates());
  ASSERT_TRUE(c);
  EXPECT_FALSE(send_text(**c, "x"));
  c->reset();
  EXPECT_FALSE(serving.get());
}

TEST_F(tls_test, files_are_needed_on_both_sides) {
  EXPECT_EQ(tls_->listen({}, {}).error().code, errc::invalid_argument);
  EXPECT_EQ(tls_->connect({}, soon(), {}).error().code, errc::invalid_argument);
  tls_files missing = test_certificates();
  missing.key_file = "/nonexistent/key.pem";
  const auto door = tls_->listen({}, missing);
  ASSERT_FALSE(door);
  EXPECT_EQ(door.error().code, errc::io_error);
  const test_authority other;
  tls_files crossed = test_certificates();
  crossed.key_file = other.files().key_file;
  EXPECT_FALSE(tls_->listen({}, crossed));
}

TEST_F(tls_test, plain_bytes_are_refused) {
  auto door = tls_->listen({.host = "127.0.0.1", .port = 0}, test_certificates());
  ASSERT_TRUE(door);
  auto plain = find_transport("tcp");
  ASSERT_TRUE(plain);
  auto c = (*plain)->connect({.host = "127.0.0.1", .port = (*door)->address().port}, soon());
  ASSERT_TRUE(c);
  ASSERT_TRUE(send_text(**c, "this is not a handshake of TLS, but it is long enough for one"));
  auto s = (*door)->accept(soon());
  ASSERT_TRUE(s);
  std::byte b = {};
  const auto ok = (*s)->receive({&b, 1}, soon());
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, errc::io_error);
}

TEST_F(tls_test, a_silent_peer_does_not_hold_up_the_next) {
  auto door = tls_->listen({.host = "127.0.0.1", .port = 0}, test_certificates());
  ASSERT_TRUE(door);
  auto plain = find_transport("tcp");
  const endpoint to = {.host = "127.0.0.1", .port = (*door)->address().port};
  auto silent = (*plain)->connect(to, soon());
  ASSERT_TRUE(silent);
  auto first = (*door)->accept(soon());
  ASSERT_TRUE(first);
  auto second = std::async(std::launch::async, [&] {
    auto c = tls_->connect(to, soon(), test_certificates());
    return c && send_text(**c, "z");
  });
  auto served = (*door)->accept(soon());
  ASSERT_TRUE(served);
  std::byte b = {};
  EXPECT_TRUE((*served)->receive({&b, 1}, soon()));
  EXPECT_TRUE(second.get());
  const auto stuck = (*first)->receive({&b, 1}, in(milliseconds(100)));
  ASSERT_FALSE(stuck);
  EXPECT_EQ(stuck.error().message, "timed out");
}

}  // namespace
}  // namespace tersor::transfer::testing
